# METADATA
# title: inline secrets
# description: no manifest holds a password or a key
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/inline_secrets/README.md
package agentos.admission.rules.inline_secrets

# What a secret looks like, by what it is called in the reason.
secrets := {
	"a password": `(?i)\b(?:password|passwd|passphrase)\b *[:=] *\S{6,}`,
	"a URL with a password": `(?i)\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@`,
	"an access key": `\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,})`,
	"a private key": `-----BEGIN [A-Z ]*PRIVATE KEY-----`,
}

# Variables and headers whose value is a secret whatever it looks like.
variables := `(?i)(?:password|passwd|secret|token|credential|authorization|cookie|(?:api|access|private)[_-]?key)s?$`

# METADATA
# title: found
# description: a text of a manifest looks like a secret
results contains {"rule": "inline_secrets.found", "effect": "deny", "reason": reason} if {
	some resource in input.resources

	# Patterns of secrets stand in policies.
	not resource.kind == "Policy"
	walk(resource.spec, [path, text])
	is_string(text)
	some kind, pattern in secrets
	regex.match(pattern, text)
	reason := sprintf("%s %s seems to hold %s in %s", [lower(resource.kind), resource.metadata.name, kind, place(path)])
}

# METADATA
# title: variable
# description: a variable or header is a secret by its name
results contains {"rule": "inline_secrets.variable", "effect": "deny", "reason": reason} if {
	some resource in input.resources
	resource.kind in {"Sandbox", "Tool"}
	walk(resource.spec, [path, value])
	some above in {"env", "headers"}
	array.slice(path, count(path) - 2, count(path) - 1) == [above]
	name := path[count(path) - 1]
	is_string(value)
	regex.match(variables, name)
	value != ""
	reason := sprintf(
		"%s %s holds the value of %s; declare a Secret, and name it under credentials",
		[lower(resource.kind), resource.metadata.name, name],
	)
}

place(path) := concat(".", [sprintf("%v", [step]) | some step in path])
