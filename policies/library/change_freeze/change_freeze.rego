# METADATA
# title: change freeze
# description: in a freeze nothing is changed outside
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/change_freeze/README.md
package agentos.syscall.rules.change_freeze

# Periods, the end not included, in RFC 3339.
freezes := [{"from": "2026-12-18T17:00:00Z", "until": "2027-01-04T07:00:00Z", "why": "end of the year"}]

effects := {"external"}

# Tools that may go on, such as those that only inform.
exempt_tools := {"model-call", "net-request"}

# METADATA
# title: frozen
# description: the call falls into a freeze
results contains {"rule": "change_freeze.frozen", "effect": "deny", "reason": reason} if {
	concerned
	is_number(input.now)
	some freeze in freezes
	is_period(freeze)
	time.parse_rfc3339_ns(freeze.from) <= input.now * 1000000
	input.now * 1000000 < time.parse_rfc3339_ns(freeze.until)
	reason := sprintf("tool %s is frozen until %s (%s)", [input.syscall.tool, freeze.until, freeze.why])
}

# METADATA
# title: unknown
# description: whether there is a freeze cannot be told
results contains {"rule": "change_freeze.unknown", "effect": "deny", "reason": reason} if {
	concerned
	not readable
	reason := sprintf("whether tool %s is frozen cannot be told: the clock or a period cannot be read", [input.syscall.tool])
}

concerned if {
	input.syscall.effect in effects
	not exempt
}

exempt if input.syscall.tool in exempt_tools

readable if {
	is_number(input.now)
	every freeze in freezes {
		is_period(freeze)
	}
}

is_period(freeze) if {
	is_string(freeze.why)
	is_string(freeze.from)
	is_string(freeze.until)
	regex.match(moment, freeze.from)
	regex.match(moment, freeze.until)
	time.parse_rfc3339_ns(freeze.from) < time.parse_rfc3339_ns(freeze.until)
}

moment := `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})$`
