package agentos.admission.rules.model_key_test

import data.agentos.admission.rules.model_key

model(settings) := {"kind": "Model", "metadata": {"name": "large"}, "spec": {"provider": "anthropic", "anthropic": settings}}

found(settings) := results if {
	results := model_key.results with input as {"resources": [model(settings)]}
}

test_the_vendors_key_to_the_vendor if found({"model": "m"}) == set()

test_the_vendors_key_to_the_vendors_url if found({"model": "m", "baseUrl": "https://api.anthropic.com/v1"}) == set()

test_another_variable if {
	found({"model": "m", "apiKeyEnv": "AWS_SECRET_ACCESS_KEY"}) == {{
		"rule": "model_key.variable",
		"effect": "deny",
		"reason": "model large would send the variable AWS_SECRET_ACCESS_KEY; use ANTHROPIC_API_KEY or one that begins with AGENTOS_MODEL_",
	}}
}

test_the_vendors_key_elsewhere if {
	found({"model": "m", "baseUrl": "https://api.anthropic.com.evil.example/"}) == {{
		"rule": "model_key.elsewhere",
		"effect": "deny",
		"reason": "model large would send ANTHROPIC_API_KEY to https://api.anthropic.com.evil.example/; give that endpoint a key of its own in a variable that begins with AGENTOS_MODEL_",
	}}
}

test_a_key_of_its_own_elsewhere if {
	found({"model": "m", "baseUrl": "http://127.0.0.1:8080", "apiKeyEnv": "AGENTOS_MODEL_LOCAL"}) == set()
}
