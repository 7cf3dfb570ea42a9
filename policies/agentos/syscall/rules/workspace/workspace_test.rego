package agentos.syscall.rules.workspace_test

import data.agentos.syscall.rules.workspace

tools := {
	"read": {"driver": "builtin", "workspace_args": ["path"]},
	"git": {"driver": "mcp", "workspace_args": ["repo", "files"]},
	"send": {"driver": "mcp", "workspace_args": []},
}

found(tool, args) := results if {
	results := workspace.results with input as {"syscall": {"tool": tool, "args": args}} with data.agentos.tools as tools
}

ids(results) := {result.rule | some result in results}

test_paths_inside_pass if {
	every path in ["a.md", "in/b.md", ".", "./a", "a..b", "..a", "a b", "ä/ö", "", "~x"] {
		found("read", {"path": path}) == set()
	}
}

test_an_absolute_path_is_denied if {
	found("read", {"path": "/etc/passwd"}) == {{
		"rule": "workspace.absolute",
		"effect": "deny",
		"reason": `argument path: "/etc/passwd" is absolute; name files from the top of the workspace`,
	}}
}

test_a_step_upwards_is_denied if {
	every path in ["..", "../a", "a/../../b", "a/.."] {
		ids(found("read", {"path": path})) == {"workspace.parent"}
	}
}

test_a_strange_character_is_denied if {
	every path in ["a\u0000b", "..\\a", "a\nb", "a\u007f"] {
		ids(found("read", {"path": path})) == {"workspace.character"}
	}
}

test_what_is_no_text_is_denied if {
	every path in [1, null, true, {"a": 1}, ["a", 2]] {
		ids(found("read", {"path": path})) == {"workspace.type"}
	}
}

test_arguments_of_a_server_that_name_files_are_held_too if {
	ids(found("git", {"repo": "/srv"})) == {"workspace.absolute"}
	ids(found("git", {"repo": "a", "files": ["b", "../c"]})) == {"workspace.parent"}
	found("git", {"repo": "a", "files": ["b", "c"]}) == set()
}

test_arguments_that_name_no_file_are_free if {
	found("send", {"path": "/x/../y"}) == set()
	found("git", {"message": "/x"}) == set()
}

test_a_tool_that_is_not_declared_is_left_to_grants if found("other", {"path": "/x"}) == set()
