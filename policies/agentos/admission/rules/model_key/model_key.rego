# METADATA
# title: model key
# description: a Model sends a key only from a variable that is meant for models, and the shared key only to its vendor
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/agentos/admission/rules/model_key/README.md
package agentos.admission.rules.model_key

# METADATA
# title: variable
# description: apiKeyEnv names a variable of the runtime that is not meant for models
results contains {"rule": "model_key.variable", "effect": "deny", "reason": reason} if {
	some model in models
	not allowed(model.variable)
	reason := sprintf(
		"model %s would send the variable %s; use ANTHROPIC_API_KEY or one that begins with AGENTOS_MODEL_",
		[model.name, model.variable],
	)
}

# METADATA
# title: elsewhere
# description: the vendor's shared key would be sent to another place
results contains {"rule": "model_key.elsewhere", "effect": "deny", "reason": reason} if {
	some model in models
	model.url != ""
	not startswith(model.url, "https://api.anthropic.com/")
	not startswith(model.variable, "AGENTOS_MODEL_")
	reason := sprintf(
		"model %s would send %s to %s; give that endpoint a key of its own in a variable that begins with AGENTOS_MODEL_",
		[model.name, model.variable, model.url],
	)
}

models contains {
	"name": resource.metadata.name,
	"variable": object.get(resource.spec.anthropic, "apiKeyEnv", "ANTHROPIC_API_KEY"),
	"url": object.get(resource.spec.anthropic, "baseUrl", ""),
} if {
	some resource in input.resources
	resource.kind == "Model"
	resource.spec.provider == "anthropic"
}

allowed(variable) if variable == "ANTHROPIC_API_KEY"

allowed(variable) if startswith(variable, "AGENTOS_MODEL_")
