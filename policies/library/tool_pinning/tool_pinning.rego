# METADATA
# title: tool pinning
# description: an MCP tool is what somebody has reviewed
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/tool_pinning/README.md
package agentos.admission.rules.tool_pinning

# The annotation that holds the digest of what was reviewed.
annotation := "reviewed"

# The parts of a Tool that say what a model is told and what is run.
reviewed_parts := {"credentials", "description", "driver", "effect", "inputSchema", "labels", "sandbox"}

# METADATA
# title: changed
# description: a tool differs from what was reviewed, or was never reviewed
results contains {"rule": "tool_pinning.changed", "effect": "deny", "reason": reason} if {
	some tool in input.resources
	tool.kind == "Tool"
	some driver in {"exec", "http", "mcp"}
	tool.spec.driver[driver]
	digest := sprintf("sha256:%s", [crypto.sha256(json.marshal(object.filter(tool.spec, reviewed_parts)))])
	not annotated(tool) == digest
	reason := sprintf(
		"tool %s is not as it was reviewed; who has reviewed it sets the annotation %s: %s",
		[tool.metadata.name, annotation, digest],
	)
}

annotated(tool) := object.get(object.get(tool.metadata, "annotations", {}), annotation, "")
