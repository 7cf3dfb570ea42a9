# METADATA
# title: protected paths
# description: certain files of the workspace are not written
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/protected_paths/README.md
package agentos.syscall.rules.protected_paths

# Globs in lower case: `*` stays within one step of a path, `**` crosses steps.
protected := {
	"input/**",
	"policies/**",
	"{.env*,**/.env*}",
	"{.git,.git/**,**/.git,**/.git/**}",
	"{*.key,*.pem,**/*.key,**/*.pem}",
}

# METADATA
# title: denied
# description: a tool that does more than read names a protected file
results contains {"rule": "protected_paths.denied", "effect": "deny", "reason": reason} if {
	not input.syscall.effect == "read"
	some name in data.agentos.tools[input.syscall.tool].workspace_args
	walk(input.syscall.args[name], [_, path])
	is_string(path)
	some pattern in protected
	glob.match(pattern, ["/"], plain(path))
	reason := sprintf("tool %s may not change %s, which is protected (%s)", [input.syscall.tool, json.marshal(path), pattern])
}

# The path without what leads nowhere, in lower case: on some disks A and a are one file. Steps upwards are denied by the rule workspace.
plain(path) := concat("/", [step | some step in split(lower(path), "/"); not step in {"", "."}])
