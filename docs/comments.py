"""How griffe reads the package: the comment of a field documents it; what is defined once is shown once."""

import ast
from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Takes an attribute's comment at the end of its line for its docstring, where it has none."""

    def on_attribute_instance(self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for every attribute that it collects."""
        if attr.docstring is not None or attr.lineno is None or not attr.parent or not attr.parent.is_class:
            return
        line = attr.lines_collection[attr.filepath][(attr.endlineno or attr.lineno) - 1]
        _, mark, comment = line.partition("  # ")
        if mark and not comment.startswith(("noqa", "type:", "fmt:")):
            attr.docstring = griffe.Docstring(comment.strip(), parent=attr, lineno=attr.lineno)


class DefinedOnce(griffe.Extension):
    """Leaves out of a package's page what its modules define: the modules show it."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when all is collected."""
        for module in list(pkg.modules.values()):
            for name in [n for n, member in module.members.items() if member.is_alias]:
                del module.members[name]
            self.on_package(pkg=module)
