"""Answers laid out for people: plans, tables, events; whatever comes out of a declaration or a tool is escaped."""
