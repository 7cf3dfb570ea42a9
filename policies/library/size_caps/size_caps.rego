# METADATA
# title: size caps
# description: the arguments of a call stay within a size
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/size_caps/README.md
package agentos.syscall.rules.size_caps

# Most characters of one text, items of one list or object, and characters of all arguments as JSON, by effect.
caps := {
	"read": {"text": 4096, "items": 100, "all": 16384},
	"write": {"text": 200000, "items": 1000, "all": 250000},
	"external": {"text": 20000, "items": 100, "all": 50000},
}

# METADATA
# title: text
# description: one text is too long
results contains {"rule": "size_caps.text", "effect": "deny", "reason": reason} if {
	walk(input.syscall.args, [path, value])
	is_string(value)
	count(value) > cap.text
	reason := sprintf("argument %s of tool %s has %d characters, at most %d", [place(path), tool, count(value), cap.text])
}

# METADATA
# title: items
# description: one list or object has too many items
results contains {"rule": "size_caps.items", "effect": "deny", "reason": reason} if {
	walk(input.syscall.args, [path, value])
	is_list(value)
	count(value) > cap.items
	reason := sprintf("argument %s of tool %s has %d items, at most %d", [place(path), tool, count(value), cap.items])
}

# METADATA
# title: all
# description: all arguments together are too long
results contains {"rule": "size_caps.all", "effect": "deny", "reason": reason} if {
	size := count(json.marshal(input.syscall.args))
	size > cap.all
	reason := sprintf("the arguments of tool %s have %d characters, at most %d", [tool, size, cap.all])
}

is_list(value) if is_array(value)

is_list(value) if is_object(value)

tool := input.syscall.tool

# The strictest where the effect is not told.
cap := object.get(caps, object.get(input.syscall, "effect", "read"), caps.read)

place([]) := "(all)"

place(path) := concat(".", [sprintf("%v", [step]) | some step in path]) if count(path) > 0
