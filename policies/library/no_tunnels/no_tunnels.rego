# METADATA
# title: no tunnels
# description: no request leaves of which nobody sees what is asked
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/no_tunnels/README.md
package agentos.syscall.rules.no_tunnels

# METADATA
# title: denied
# description: a request whose method and path are not known
results contains {"rule": "no_tunnels.denied", "effect": "deny", "reason": reason} if {
	input.syscall.tool == "net-request"
	not seen
	reason := "a tunnel that nobody looks into does not leave; an operator can write inspect: true in the Sandbox"
}

seen if input.syscall.args.scheme in {"http", "https"}
