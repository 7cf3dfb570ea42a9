package agentos.syscall.rules.business_hours_test

import data.agentos.syscall.rules.business_hours

question(tool, effect, now) := {"syscall": {"tool": tool, "effect": effect}, "now": now}

at(moment) := results if {
	results := business_hours.results with input as question("send-mail", "external", time.parse_rfc3339_ns(moment) / 1000000)
}

closed := {{
	"rule": "business_hours.closed",
	"effect": "ask",
	"reason": "tool send-mail would reach outside out of hours (Europe/Zurich, 8 to 18 o'clock on working days); a person looks first",
}}

test_open if {
	every moment in ["2026-11-18T07:00:00Z", "2026-11-18T16:59:59.999Z", "2026-11-16T12:00:00Z", "2026-11-20T12:00:00Z"] {
		at(moment) == set()
	}
}

test_closed if {
	every moment in ["2026-11-18T06:59:59.999Z", "2026-11-18T17:00:00Z", "2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z"] {
		at(moment) == closed
	}
}

test_summer_time if {
	at("2026-07-15T06:00:00Z") == set()
	at("2026-07-15T05:59:59Z") == closed
	at("2026-07-15T16:00:00Z") == closed
}

test_no_clock_is_closed if {
	every now in ["noon", null, 1e30, 9000000000000, 0.0000001] {
		results := business_hours.results with input as question("send-mail", "external", now)
		results == closed
	}
	without := business_hours.results with input as object.remove(question("send-mail", "external", 0), ["now"])
	without == closed
}

test_what_stays_inside if {
	every call in [["write-note", "write"], ["read-mail", "read"], ["model-call", "external"], ["net-request", "external"]] {
		results := business_hours.results with input as question(call[0], call[1], 0)
		results == set()
	}
}
