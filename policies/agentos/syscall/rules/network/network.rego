# METADATA
# title: network
# description: a request leaves only for a place that the tool's own address or its sandbox lists
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/network/README.md
package agentos.syscall.rules.network

# METADATA
# title: undeclared
# description: nothing that is declared of the tool, or of the sandbox that it works in, covers the request
results contains {"rule": "network.undeclared", "effect": "deny", "reason": reason} if {
	leaves
	not odd
	not covered
	not hidden
	reason := sprintf("tool %s may not reach %s: %s", [input.syscall.args.tool, place, mend])
}

# METADATA
# title: opaque
# description: methods or paths of the place are limited, and the request cannot be looked into
results contains {"rule": "network.opaque", "effect": "deny", "reason": reason} if {
	leaves
	not odd
	not covered
	hidden
	reason := sprintf(
		"tool %s may not open a tunnel to %s: only some methods or paths of it are allowed, and nobody sees those of a tunnel; %s",
		[input.syscall.args.tool, place, "an operator can write inspect: true in the Sandbox"],
	)
}

# METADATA
# title: malformed
# description: a request of which something is not told, or not in the one way in which it is compared
results contains {"rule": "network.malformed", "effect": "deny", "reason": reason} if {
	leaves
	odd
	reason := "scheme, host, port, method and path of a request must be told in their normal form"
}

leaves if input.syscall.tool == "net-request"

# What is told in no way, or in another form than the declarations have, is compared with nothing.
odd if not known

known if {
	is_string(input.syscall.args.tool)
	is_string(input.syscall.args.host)
	regex.match(`^[a-z0-9_:][a-z0-9._:-]*$`, input.syscall.args.host)
	not dotted
	is_number(input.syscall.args.port)
	input.syscall.args.port == floor(input.syscall.args.port)
	input.syscall.args.port >= 1
	input.syscall.args.port <= 65535
	seen
}

dotted if regex.match(`\.\.|\.$`, input.syscall.args.host)

seen if {
	input.syscall.args.scheme in {"http", "https"}
	is_string(input.syscall.args.method)
	regex.match(`^[A-Z][A-Z0-9_-]*$`, input.syscall.args.method)
	is_string(input.syscall.args.path)
	regex.match(`^/[!-~]*$`, input.syscall.args.path)
	not crooked
}

seen if {
	input.syscall.args.scheme == "tunnel"
	count({method | method := input.syscall.args.method} | {path | path := input.syscall.args.path}) == 0
}

# Parts that lead upwards or nowhere, and what a server could read as such.
crooked if regex.match(`(?i)//|/\.\.?(/|$)|%2e|%2f|%5c|%00|[\\?#]`, input.syscall.args.path)

covered if {
	some destination in reach
	reached(destination)
	asked(destination)
}

# The place may be reached, but not in every way, and the way is not seen.
hidden if {
	input.syscall.args.scheme == "tunnel"
	some destination in reach
	reached(destination)
}

# A driver that sends requests itself goes where the tool's address is; a process goes where its sandbox lets it.
reach := found if {
	found := data.agentos.tools[input.syscall.args.tool].reach
} else := found if {
	data.agentos.tools[input.syscall.args.tool].driver in {"exec", "mcp"}
	found := data.agentos.sandboxes[input.syscall.args.sandbox].reach
} else := []

reached(destination) if {
	named(destination.host)
	input.syscall.args.port in destination.ports
}

named(pattern) if pattern == input.syscall.args.host

named(pattern) if {
	startswith(pattern, "*.")
	endswith(input.syscall.args.host, substring(pattern, 1, -1))
	not address
}

address if regex.match(`:|(^|\.)[0-9]+$`, input.syscall.args.host)

asked(destination) if {
	method_fits(destination)
	path_fits(destination)
}

method_fits(destination) if not "methods" in object.keys(destination)

method_fits(destination) if input.syscall.args.method in destination.methods

path_fits(destination) if not "paths" in object.keys(destination)

path_fits(destination) if {
	some pattern in destination.paths
	glob.match(pattern, ["/"], input.syscall.args.path)
}

place := sprintf("%s:%d", [input.syscall.args.host, input.syscall.args.port]) if {
	input.syscall.args.scheme == "tunnel"
} else := sprintf(
	"%s:%d (%s %s)",
	[input.syscall.args.host, input.syscall.args.port, input.syscall.args.method, input.syscall.args.path],
)

mend := "its address leads elsewhere; an operator can declare a tool for it" if {
	data.agentos.tools[input.syscall.args.tool].reach
} else := sprintf("sandbox %s does not list it; an operator can add it to network.allow", [input.syscall.args.sandbox]) if {
	is_string(input.syscall.args.sandbox)
} else := "it sends no requests"
