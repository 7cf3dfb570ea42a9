package agentos.syscall.rules.protected_paths_test

import data.agentos.syscall.rules.protected_paths

found(tool, effect, args) := results if {
	results := protected_paths.results with input as {"syscall": {"tool": tool, "effect": effect, "args": args}}
		with data.agentos.tools as {"write-note": {"workspace_args": ["path"]}, "move": {"workspace_args": ["paths"]}}
}

denied(tool, path, pattern) := {{
	"rule": "protected_paths.denied",
	"effect": "deny",
	"reason": sprintf("tool %s may not change %s, which is protected (%s)", [tool, json.marshal(path), pattern]),
}}

written(path) := found("write-note", "write", {"path": path, "content": ".env"})

test_protected_files if {
	patterns := {
		"input/a.md": "input/**",
		"./input//a/b.md": "input/**",
		"Input/a.md": "input/**",
		"policies/care.rego": "policies/**",
		".env": "{.env*,**/.env*}",
		"app/.env.local": "{.env*,**/.env*}",
		".git": "{.git,.git/**,**/.git,**/.git/**}",
		".git/config": "{.git,.git/**,**/.git,**/.git/**}",
		"app/.git/hooks/post-commit": "{.git,.git/**,**/.git,**/.git/**}",
		"tls/server.KEY": "{*.key,*.pem,**/*.key,**/*.pem}",
		"server.pem": "{*.key,*.pem,**/*.key,**/*.pem}",
	}
	every path, pattern in patterns {
		written(path) == denied("write-note", path, pattern)
	}
}

test_other_files if {
	every path in ["notes/a.md", "notes/input.md", "environment.md", "a/gitignore", "keys/a.md", 7, null] {
		written(path) == set()
	}
}

test_lists_of_paths if {
	found("move", "write", {"paths": ["notes/a.md", "input/b.md"]}) == denied("move", "input/b.md", "input/**")
	found("move", "external", {"paths": ["input/b.md"]}) == denied("move", "input/b.md", "input/**")
}

test_reading_is_free if found("write-note", "read", {"path": "input/a.md"}) == set()
