# METADATA
# title: declassify
# description: labels come off a session only by a syscall of its own, which a person approves
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/declassify/README.md
package agentos.syscall.rules.declassify

# METADATA
# title: approval
# description: a person looks at every declassification, whatever the grant says
results contains {"rule": "declassify.approval", "effect": "ask", "reason": reason} if {
	declassifies
	named
	reason := sprintf("taking labels off the session (%s) needs a person's approval", [concat(", ", sort(wanted))])
}

# METADATA
# title: absent
# description: a label that the session does not carry
results contains {"rule": "declassify.absent", "effect": "deny", "reason": reason} if {
	declassifies
	named
	absent := sort(wanted - {label | some label in input.session.labels})
	count(absent) > 0
	reason := sprintf("the session does not carry %s; name labels that it carries", [concat(", ", absent)])
}

# METADATA
# title: unnamed
# description: a declassification that does not say of what
results contains {"rule": "declassify.unnamed", "effect": "deny", "reason": "labels: name the labels to take off, as texts"} if {
	declassifies
	not named
}

declassifies if data.agentos.tools[input.syscall.tool].primitive == "declassify"

wanted := {label | some label in input.syscall.args.labels}

named if {
	is_array(input.syscall.args.labels)
	count(wanted) > 0
	every label in wanted {
		is_string(label)
	}
}
