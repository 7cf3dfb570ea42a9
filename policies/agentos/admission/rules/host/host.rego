# METADATA
# title: host
# description: what reaches into the machine that all tenants share is declared by a principal of the fleet
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/agentos/admission/rules/host/README.md
package agentos.admission.rules.host

# METADATA
# title: isolation
# description: a Sandbox that is not made of namespaces by the runtime
results contains {"rule": "host.isolation", "effect": "deny", "reason": reason} if {
	some sandbox in sandboxes
	isolation := object.get(sandbox.spec, "isolation", "bubblewrap")
	isolation != "bubblewrap"
	reason := told(sandbox, sprintf("isolation %s", [isolation]))
}

# METADATA
# title: mounts
# description: a Sandbox that shows files of the machine
results contains {"rule": "host.mounts", "effect": "deny", "reason": reason} if {
	some sandbox in sandboxes
	paths := [mount.path | some mount in object.get(sandbox.spec, "mounts", [])]
	count(paths) > 0
	reason := told(sandbox, sprintf("mounts of %s", [concat(", ", paths)]))
}

# METADATA
# title: private
# description: a Sandbox or Tool that may reach networks beyond the public internet
results contains {"rule": "host.private", "effect": "deny", "reason": reason} if {
	some resource in changed
	resource.kind in {"Sandbox", "Tool"}
	ranges := [range | some place in places; some range in object.get(resource.spec, place, [])]
	count(ranges) > 0
	reason := told(resource, sprintf("private networks %s", [concat(", ", ranges)]))
}

# METADATA
# title: secret
# description: a Secret, which is kept where those of others and of the runtime are
results contains {"rule": "host.secret", "effect": "deny", "reason": reason} if {
	some secret in changed
	secret.kind == "Secret"
	reason := told(secret, "a place where secrets are kept")
}

# METADATA
# title: webhook
# description: a webhook, whose secret is in a variable of the runtime's environment
results contains {"rule": "host.webhook", "effect": "deny", "reason": reason} if {
	some trigger in changed
	trigger.kind == "Trigger"
	variable := trigger.spec.on.webhook.secretEnv
	reason := told(trigger, sprintf("the variable %s of the runtime", [variable]))
}

# METADATA
# title: model
# description: a Model, which the runtime itself asks, with a key of its environment, or plays in its own process
results contains {"rule": "host.model", "effect": "deny", "reason": reason} if {
	some model in changed
	model.kind == "Model"
	reason := told(model, sprintf("provider %s, which the runtime itself asks,", [model.spec.provider]))
}

# Where networks are named.
places := [["network", "private"], ["driver", "http", "private"], ["driver", "mcp", "server", "private"]]

home := input.principal.tenant

# What is left by somebody who is of one tenant alone.
changed contains change.resource if {
	home != "*"
	some change in input.changes
	change.action != "delete"
}

sandboxes contains resource if {
	some resource in changed
	resource.kind == "Sandbox"
}

told(resource, what) := sprintf(
	"%s %s names %s, which principal %s of tenant %s may not give; a principal of the fleet can",
	[lower(resource.kind), resource.metadata.name, what, input.principal.name, home],
)
