# METADATA
# title: recipients
# description: tools that reach outside write to known domains and call known hosts
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/recipients/README.md
package agentos.syscall.rules.recipients

# Exactly these; a subdomain is another domain.
allowed_domains := {"kestrelrow.example", "partner.example"}

allowed_hosts := {"api.partner.example", "intranet.kestrelrow.example"}

# Arguments that name who gets something, or where it goes, in any depth.
address_args := {"bcc", "cc", "recipient", "recipients", "to"}

url_args := {"endpoint", "uri", "url", "webhook"}

# METADATA
# title: address
# description: an address that is not of an allowed domain, or not one that can be read
results contains {"rule": "recipients.address", "effect": "deny", "reason": reason} if {
	some value in named(address_args)
	not known_address(value)
	reason := sprintf("tool %s would write to %s, which is of no allowed domain", [input.syscall.tool, json.marshal(value)])
}

# METADATA
# title: url
# description: a URL that is not https to an allowed host, or not one that can be read
results contains {"rule": "recipients.url", "effect": "deny", "reason": reason} if {
	some value in named(url_args)
	not known_url(value)
	reason := sprintf("tool %s would call %s, which is not https to an allowed host", [input.syscall.tool, json.marshal(value)])
}

# What stands under the given names. An absent recipient (null or an empty text) is none.
named(names) := {value |
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
	walk(input.syscall.args, [path, value])
	not is_array(value)
	not is_object(value)
	not value in {null, ""}
	some step in path
	is_string(step)
	lower(step) in names
}

# One address or several, each alone or as `Name <address>`.
known_address(text) if {
	is_string(text)
	every part in regex.split(`[,;]`, text) {
		found := regex.find_all_string_submatch_n(`^ *(?:[^<>@\r\n]*<)?[^\s<>@"\\]+@([A-Za-z0-9.-]+)>? *$`, part, 1)
		lower(found[0][1]) in allowed_domains
	}
}

known_url(text) if {
	is_string(text)
	found := regex.find_all_string_submatch_n(`^(?i:https)://([A-Za-z0-9.-]+)(?::443)?(?:[/?#][^\s\\]*)?$`, text, 1)
	lower(found[0][1]) in allowed_hosts
}
