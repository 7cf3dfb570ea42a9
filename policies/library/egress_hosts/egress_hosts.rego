# METADATA
# title: egress hosts
# description: requests of tools leave for these hosts alone, whatever sandboxes and tools declare
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/egress_hosts/README.md
package agentos.syscall.rules.egress_hosts

# METADATA
# title: denied
# description: a request to another host
results contains {"rule": "egress_hosts.denied", "effect": "deny", "reason": reason} if {
	input.syscall.tool == "net-request"
	not listed
	reason := sprintf("requests leave for listed hosts alone, and %s is not among them", [json.marshal(host)])
}

default host := null

host := input.syscall.args.host

listed if host in hosts

listed if {
	is_string(host)
	some pattern in hosts
	startswith(pattern, "*.")
	endswith(host, substring(pattern, 1, -1))
}

# `spec.parameters` of the Policy, or these: names, and `*.` and a name for any host below it.
default hosts := ["api.partner.example", "*.kestrelrow.example"]

hosts := data.agentos.policies.egress_hosts.parameters.hosts if {
	texts(data.agentos.policies.egress_hosts.parameters.hosts)
}

texts(value) if {
	is_array(value)
	every one in value {
		is_string(one)
	}
}

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "egress_hosts.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.egress_hosts.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy egress_hosts cannot be %s; see its page", [key, json.marshal(value)])
}

known("hosts", value) if texts(value)
