# METADATA
# title: approved models
# description: agents think with models that the company has approved, where it has approved them
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/approved_models/README.md
package agentos.admission.rules.approved_models

# The model's own name at its provider; `scripted` models have none.
approved := {"anthropic": {"claude-sonnet-4-5"}}

# Where calls may go; empty is the provider's own address.
approved_urls := {"", "https://models.kestrelrow.example"}

scripted_is_approved := true

# METADATA
# title: model
# description: a Model names a provider or a model that is not approved
results contains {"rule": "approved_models.model", "effect": "deny", "reason": reason} if {
	some model in models
	not model_approved(model)
	name := object.get(settings(model), "model", "")
	reason := sprintf("model %s is %s %s, which is not approved", [model.metadata.name, model.spec.provider, json.marshal(name)])
}

# METADATA
# title: url
# description: a Model would be called at a place that is not approved
results contains {"rule": "approved_models.url", "effect": "deny", "reason": reason} if {
	some model in models
	url := object.get(settings(model), "baseUrl", "")
	not url in approved_urls
	reason := sprintf("model %s would be called at %s, which is not approved", [model.metadata.name, url])
}

models := [resource | some resource in input.resources; resource.kind == "Model"]

settings(model) := object.get(model.spec, model.spec.provider, {})

model_approved(model) if settings(model).model in approved[model.spec.provider]

model_approved(model) if {
	model.spec.provider == "scripted"
	scripted_is_approved
}
