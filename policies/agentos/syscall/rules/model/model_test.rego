package agentos.syscall.rules.model_test

import data.agentos.syscall.rules.model

found(tool, args) := results if {
	results := model.results with input as {"agent": {"name": "triage"}, "syscall": {"tool": tool, "args": args}}
		with data.agentos.agents as {"triage": {"model": "any", "models": ["small", "tiny"]}}
}

undeclared(name) := {{
	"rule": "model.undeclared",
	"effect": "deny",
	"reason": sprintf("agent triage may not call model %s; an operator can name it in the Agent", [name]),
}}

test_the_declared_model if found("model-call", {"model": "small"}) == set()

test_another_of_its_class if found("model-call", {"model": "tiny"}) == set()

test_the_class_is_no_model if found("model-call", {"model": "any"}) == undeclared(`"any"`)

test_an_agent_without_models if {
	results := model.results with input as {"agent": {"name": "triage"}, "syscall": {"tool": "model-call", "args": {"model": "small"}}}
		with data.agentos.agents as {"triage": {"model": "small"}}
	count(results) == 1
}

test_another_model if found("model-call", {"model": "large"}) == undeclared(`"large"`)

test_no_model if found("model-call", {}) == undeclared("null")

test_other_tools_are_not_its_matter if found("read", {"model": "large"}) == set()

test_an_agent_that_is_not_declared if {
	results := model.results with input as {"agent": {"name": "ghost"}, "syscall": {"tool": "model-call", "args": {"model": "small"}}}
		with data.agentos.agents as {}
	count(results) == 1
}
