# METADATA
# title: inside addresses
# description: a tool that reaches outside is not sent back into the own network
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/inside_addresses/README.md
package agentos.syscall.rules.inside_addresses

# Hosts that may be called all the same, exactly as written in the URL, in lower case.
exempt_hosts := {"intranet.kestrelrow.example"}

# Names that end so belong to the own network.
inside_suffixes := {".home.arpa", ".internal", ".lan", ".local", ".localdomain", ".localhost"}

# METADATA
# title: name
# description: a URL whose host is a name of the own network
results contains {"rule": "inside_addresses.name", "effect": "deny", "reason": reason} if {
	some url, host in hosts
	inside(host)
	reason := sprintf("tool %s would call %s, a name of the own network", [input.syscall.tool, json.marshal(url)])
}

# METADATA
# title: number
# description: a URL whose host is an address in numbers, of which there are too many spellings
results contains {"rule": "inside_addresses.number", "effect": "deny", "reason": reason} if {
	some url, host in hosts
	regex.match(`^(?:\[.*|.*:.*|(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?)$`, host)
	reason := sprintf("tool %s would call %s by an address in numbers; call it by its name", [input.syscall.tool, json.marshal(url)])
}

# METADATA
# title: unclear
# description: a URL that two programs could read in two ways
results contains {"rule": "inside_addresses.unclear", "effect": "deny", "reason": reason} if {
	some url in urls
	not url in object.keys(hosts)
	reason := sprintf("tool %s would call %s, which can be read in two ways", [input.syscall.tool, json.marshal(url)])
}

# Every text of the arguments that is a URL, in any depth.
urls contains value if {
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
	walk(input.syscall.args, [_, value])
	is_string(value)
	regex.match(`^\s*(?:[A-Za-z][A-Za-z0-9+.-]*:[/\\]|//)`, value)
}

# The host of each URL that reads in one way only: no user, no backslash, no blank, no escape in the host.
hosts[url] := host if {
	some url in urls
	found := regex.find_all_string_submatch_n(
		`^[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?(?:[/?#][^\s\\]*)?$`,
		url, 1,
	)
	host := lower(found[0][1])
	not host in exempt_hosts
}

# A request names its host alone.
hosts[host] := host if {
	input.syscall.tool == "net-request"
	host := input.syscall.args.host
	is_string(host)
	not host in exempt_hosts
}

hosts[url] := "(exempt)" if {
	some url in urls
	found := regex.find_all_string_submatch_n(`^[A-Za-z]+://([A-Za-z0-9._-]+)(?::[0-9]+)?(?:[/?#][^\s\\]*)?$`, url, 1)
	lower(found[0][1]) in exempt_hosts
}

inside(host) if {
	some suffix in inside_suffixes
	endswith(sprintf(".%s", [trim_right(host, ".")]), suffix)
}

inside(host) if regex.match(`^[a-z_-][a-z0-9_-]*\.*$`, host)
