package agentos.admission.rules.approved_models_test

import data.agentos.admission.rules.approved_models

found(spec) := results if {
	results := approved_models.results with input as {"resources": [
		{"kind": "Tool", "metadata": {"name": "t"}, "spec": {}},
		{"kind": "Model", "metadata": {"name": "careful"}, "spec": spec},
	]}
}

hosted(settings) := {"provider": "anthropic", "anthropic": settings}

unapproved(what) := {{
	"rule": "approved_models.model",
	"effect": "deny",
	"reason": sprintf("model careful is %s, which is not approved", [what]),
}}

test_an_approved_model if {
	found(hosted({"model": "claude-sonnet-4-5"})) == set()
	found(hosted({"model": "claude-sonnet-4-5", "baseUrl": "https://models.kestrelrow.example"})) == set()
}

test_another_model if {
	found(hosted({"model": "new-and-shiny"})) == unapproved(`anthropic "new-and-shiny"`)
	found(hosted({})) == unapproved(`anthropic ""`)
}

test_another_provider if {
	found({"provider": "elsewhere", "elsewhere": {"model": "claude-sonnet-4-5"}}) == unapproved(`elsewhere "claude-sonnet-4-5"`)
}

test_another_place if {
	found(hosted({"model": "claude-sonnet-4-5", "baseUrl": "https://models.kestrelrow.example.evil"})) == {{
		"rule": "approved_models.url",
		"effect": "deny",
		"reason": "model careful would be called at https://models.kestrelrow.example.evil, which is not approved",
	}}
}

test_scripted_models if {
	scripted := {"provider": "scripted", "scripted": {"play": {"name": "p", "rules": []}}}
	found(scripted) == set()
	results := approved_models.results with input as {"resources": [{"kind": "Model", "metadata": {"name": "careful"}, "spec": scripted}]}
		with approved_models.scripted_is_approved as false
	results == unapproved(`scripted ""`)
}
