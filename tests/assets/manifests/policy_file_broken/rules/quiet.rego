# METADATA
# title: quiet
# description: nothing is written at night
package agentos.syscall.rules.quiet

results contains {"rule": "quiet.night" "effect": "deny", "reason": "it is night"} if input.night
