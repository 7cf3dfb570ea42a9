# METADATA
# title: workspace
# description: an argument that names a file stays inside the session's workspace
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/workspace/README.md
package agentos.syscall.rules.workspace

# METADATA
# title: absolute
# description: a path that starts at the root of the machine
results contains {"rule": "workspace.absolute", "effect": "deny", "reason": reason} if {
	some name, path in paths
	startswith(path, "/")
	reason := sprintf("argument %s: %s is absolute; name files from the top of the workspace", [name, json.marshal(path)])
}

# METADATA
# title: parent
# description: a path with a step upwards
results contains {"rule": "workspace.parent", "effect": "deny", "reason": reason} if {
	some name, path in paths
	".." in split(path, "/")
	reason := sprintf("argument %s: %s leads upwards; no path may hold a .. step", [name, json.marshal(path)])
}

# METADATA
# title: character
# description: a path with a NUL, another control character or a backslash, which systems read differently
results contains {"rule": "workspace.character", "effect": "deny", "reason": reason} if {
	some name, path in paths
	regex.match(`[\x00-\x1f\x7f\\]`, path)
	reason := sprintf("argument %s: %s holds a control character or a backslash", [name, json.marshal(path)])
}

# METADATA
# title: type
# description: an argument that should name a file and is neither text nor a list of texts
results contains {"rule": "workspace.type", "effect": "deny", "reason": reason} if {
	some name in names
	some value in flat(input.syscall.args[name])
	not is_string(value)
	reason := sprintf("argument %s must name a file as text", [name])
}

default names := []

names := data.agentos.tools[input.syscall.tool].workspace_args

paths[label] := value if {
	some name in names
	argument := input.syscall.args[name]
	some index, value in flat(argument)
	is_string(value)
	label := labelled(argument, name, index)
}

labelled(argument, name, index) := sprintf("%s[%d]", [name, index]) if {
	is_array(argument)
} else := name

flat(value) := value if {
	is_array(value)
} else := [value]
