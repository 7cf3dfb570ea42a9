# METADATA
# title: isolated sandboxes
# description: every Sandbox that is declared sets processes apart
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/isolated_sandboxes/README.md
package agentos.admission.rules.isolated_sandboxes

# What counts as set apart; without `isolation` it is the first.
isolations := ["bubblewrap", "container"]

# METADATA
# title: none
# description: a Sandbox that sets nothing apart
results contains {"rule": "isolated_sandboxes.none", "effect": "deny", "reason": reason} if {
	some sandbox in input.resources
	sandbox.kind == "Sandbox"
	isolation := object.get(sandbox.spec, "isolation", isolations[0])
	not isolation in isolations
	reason := sprintf("sandbox %s has isolation %s, which sets nothing apart", [sandbox.metadata.name, isolation])
}
