package agentos.admission.rules.isolated_sandboxes_test

import data.agentos.admission.rules.isolated_sandboxes

found(kind, spec) := results if {
	results := isolated_sandboxes.results with input as {"resources": [{"kind": kind, "metadata": {"name": "x"}, "spec": spec}]}
}

test_what_sets_apart if {
	every spec in [{}, {"isolation": "bubblewrap"}, {"isolation": "container", "image": "debian"}] {
		found("Sandbox", spec) == set()
	}
}

test_what_does_not if {
	found("Sandbox", {"isolation": "unsafe-none"}) == {{
		"rule": "isolated_sandboxes.none",
		"effect": "deny",
		"reason": "sandbox x has isolation unsafe-none, which sets nothing apart",
	}}
	count(found("Sandbox", {"isolation": "chroot"})) == 1
}

test_other_kinds if found("Agent", {"isolation": "unsafe-none"}) == set()
