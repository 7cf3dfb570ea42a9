# METADATA
# title: business hours
# description: outside of business hours nothing reaches outside without a person
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/business_hours/README.md
package agentos.syscall.rules.business_hours

# A zone of the IANA time zone database; summer time is its matter.
zone := "Europe/Zurich"

days := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday"}

# The first hour that is open, and the first that is closed again.
opens := 8

closes := 18

effects := {"external"}

# METADATA
# title: closed
# description: a call that reaches outside, at a time when nobody is in
results contains {"rule": "business_hours.closed", "effect": "ask", "reason": reason} if {
	input.syscall.effect in effects
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	not open
	reason := sprintf(
		"tool %s would reach outside out of hours (%s, %d to %d o'clock on working days); a person looks first",
		[input.syscall.tool, zone, opens, closes],
	)
}

# Not defined, so not open, where there is no clock or it cannot be read.
open if {
	clock
	moment := [input.now * 1000000, zone]
	time.weekday(moment) in days
	[hour, _, _] := time.clock(moment)
	hour >= opens
	hour < closes
}

# Whole milliseconds, within the years that OPA's clock has.
clock if {
	is_number(input.now)
	input.now == floor(input.now)
	input.now < 9000000000000
}
