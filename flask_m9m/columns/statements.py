"""Checks of tables and statements that use encrypted columns, before the database sees them.

A column type sees Python values only. In an SQL expression a value has the expression's type, so
that `func.lower("secret")` would be stored as plain text; and the database compares envelopes,
which differ each time. Each compiled statement is checked once, and each table when it is defined.
Textual SQL is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    Case,
    Cast,
    Column,
    CompoundSelect,
    Constraint,
    Engine,
    ForeignKeyConstraint,
    FunctionElement,
    Index,
    Null,
    Select,
    Table,
    Tuple,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.schema import PrimaryKeyConstraint
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.sql.dml import Insert, ValuesBase
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ClauseElement,
    ClauseList,
    ExpressionClauseList,
    Grouping,
    Label,
    UnaryExpression,
    _label_reference,
    _textual_label_reference,
)
from sqlalchemy.sql.selectable import ScalarSelect, SelectStatementGrouping

from .encrypted_types import Encrypted, Envelope, NotEncrypted, refusal

_EQUALITIES = (operators.is_, operators.is_not, operators.eq, operators.ne)
_UNKNOWN = text("")  # stands for a value of which nothing is known
_checked: WeakSet[Compiled] = WeakSet()


def watch_statements() -> None:
    """Check every statement that any engine of this process executes, and every new table."""
    event.listen(Engine, "before_cursor_execute", _check_execution)
    event.listen(Engine, "handle_error", _hide_values)
    event.listen(Column, "after_parent_attach", _check_column)
    for kind in (Index, UniqueConstraint, PrimaryKeyConstraint, ForeignKeyConstraint):
        event.listen(kind, "after_parent_attach", _check_constraint)


def _hide_values(context: Any) -> None:
    """Take values that were not encrypted yet out of the message about another value."""
    error = context.sqlalchemy_exception
    if error is not None and context.execution_context is None:
        error.hide_parameters, error.params = True, None


# Tables


def _check_column(column: Column[Any], table: Any) -> None:
    if not isinstance(table, Table) or not isinstance(column.type, Encrypted):
        return
    if column.primary_key or column.unique or column.index or column.foreign_keys:
        raise refusal(column.type)
    for default in (column.default, column.onupdate):
        if getattr(default, "is_clause_element", False) or getattr(default, "is_sequence", False):
            raise _plain(column)
    if column.server_default is not None or column.server_onupdate is not None:
        raise _plain(column)


def _check_constraint(constraint: Constraint | Index, table: Any) -> None:
    expressions: Any = getattr(constraint, "expressions", getattr(constraint, "columns", ()))
    for expression in expressions:
        for part in visitors.iterate(expression):
            _refuse(part)


# Statements


def _check_execution(
    connection: object,
    cursor: object,
    statement: str,
    parameters: object,
    context: Any,
    executemany: bool,
) -> None:
    compiled = getattr(context, "compiled", None)
    if compiled is None or compiled in _checked or compiled.statement is None:
        return
    state = compiled.compile_state
    for part in _parts(compiled.statement):
        _check_part(part, state if part is compiled.statement else None)
    expanded = getattr(state, "statement", None)  # of the ORM: with what its mappers add
    if isinstance(expanded, Select) and expanded is not compiled.statement:
        for part in _parts(expanded):
            _check_part(part, None)
    _checked.add(compiled)


def _parts(statement: ClauseElement) -> Iterator[Any]:
    """Yield a statement and everything in it, with what the traversal of SQLAlchemy leaves out."""
    yield statement
    for part in visitors.iterate(statement):
        if part is not statement:
            yield part


def _check_part(part: Any, state: Any) -> None:
    if isinstance(part, ValuesBase):
        _check_values(part, state)
    elif isinstance(part, Select):
        _check_select(part)
    elif isinstance(part, CompoundSelect):
        if not part.keyword.name.endswith("ALL"):
            _check_rows(list(part.selected_columns))
    elif isinstance(part, BinaryExpression):
        _check_comparison(part)
    elif not isinstance(part, FunctionElement) or part.name.lower() != "count":
        _refuse(*_operands(part))


def _operands(part: Any) -> Iterable[Any]:
    """Return the values that an expression computes with or compares."""
    if isinstance(part, UnaryExpression):
        return (part.element,)
    if isinstance(part, FunctionElement | Tuple):
        return part.clauses
    if isinstance(part, Case):
        return (part.value,)
    if isinstance(part, Cast):
        return (part.clause,)
    orders = (getattr(part, name, None) for name in ("partition_by", "order_by"))
    return [value for order in orders if isinstance(order, ClauseElement) for value in _each(order)]


def _each(expression: Any) -> Iterator[Any]:
    """Yield an expression, or each one of a list."""
    if isinstance(expression, Grouping):
        expression = expression.element
    if isinstance(expression, ClauseList | ExpressionClauseList):
        for part in expression.clauses:
            yield from _each(part)
    else:
        yield expression


def _check_values(statement: ValuesBase, state: Any) -> None:
    for column, value in _assignments(statement, state):
        if isinstance(column.type, Encrypted) and not _is_encrypted_for(column, value):
            raise _plain(column)


def _check_comparison(comparison: BinaryExpression[Any]) -> None:
    left, right = comparison.left, comparison.right
    if comparison.operator in _EQUALITIES:
        if isinstance(left, Null) or isinstance(right, Null):
            return
        own = _column_of(left)
        if own is not None and own is _column_of(right) and "parententity" in left._annotations:
            return  # the ORM's bulk updates compare a model's column with itself
    _refuse(*_each(left), *_each(right))


def _check_select(select: Select[Any]) -> None:
    selected = list(select.selected_columns)
    named = [*selected, *(column for table in select.get_final_froms() for column in table.c)]
    ordered = [_unlabelled(clause, named) for clause in select._order_by_clauses]
    _refuse(*ordered, *select._distinct_on)
    grouped = [_unlabelled(clause, named) for clause in select._group_by_clauses]
    _check_rows(grouped)
    if select._distinct and not select._distinct_on:
        _check_rows(selected)


def _check_rows(columns: list[Any]) -> None:
    """Refuse to tell rows apart by encrypted values alone; a primary key beside them decides."""
    roots = {id(root) for column in columns for root in _roots_of(column)}
    for column in columns:
        if isinstance(_type_of(column), Encrypted):
            owner = _column_of(column)
            key = () if owner is None else tuple(owner.table.primary_key.columns)
            if not key or not roots.issuperset(map(id, key)):
                _refuse(column)


def _unlabelled(clause: Any, named: Iterable[Any]) -> Any:
    """Return what a clause orders or groups by, also where it gives the name of a column."""
    while not isinstance(clause, str):
        if not isinstance(clause, UnaryExpression | _label_reference | _textual_label_reference):
            return clause
        clause = clause.element
    return next((column for column in named if getattr(column, "key", None) == clause), None)


# Assignments


def _assignments(statement: ValuesBase, state: Any) -> Iterator[tuple[Column[Any], Any]]:
    """Yield the columns that an INSERT or UPDATE sets, each with its value."""
    selected = statement.select if isinstance(statement, Insert) else None
    if selected is not None:
        names = list(statement._select_names or ())
        for row in _rows_of(selected):
            # A text among the columns is not in the row: no place in it is certain then.
            values = row if len(row) == len(names) else [_UNKNOWN] * len(names)
            for name, value in zip(names, values, strict=True):
                yield from ((column, value) for column in _named(statement, name))
    else:
        groups: list[Any] = [getattr(state, "_dict_parameters", None) or {}]
        groups += getattr(state, "_multi_parameters", None) or []
        groups.append(statement._values or {})
        groups += [row for rows in statement._multi_values for row in rows if hasattr(row, "items")]
        groups.append(dict(getattr(statement, "_ordered_values", None) or ()))
        for group in groups:
            for name, value in group.items():
                yield from ((column, value) for column in _named(statement, name))
    for name, value in _on_conflict(statement):
        yield from ((column, value) for column in _named(statement, name))


def _rows_of(selected: Any) -> Iterator[list[Any]]:
    """Yield the result columns of a query, or of each query of a union."""
    if isinstance(selected, CompoundSelect):
        for part in selected.selects:
            yield from _rows_of(part)
    elif isinstance(selected, SelectStatementGrouping):
        yield from _rows_of(selected.element)
    else:
        yield list(selected.selected_columns)


def _on_conflict(statement: ValuesBase) -> Iterator[tuple[Any, Any]]:
    for clause in (getattr(statement, "_post_values_clause", None), *statement.get_children()):
        values = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None)
        if isinstance(values, Mapping):
            yield from values.items()
        elif isinstance(values, list | tuple):
            yield from values


def _named(statement: ValuesBase, name: Any) -> Iterator[Column[Any]]:
    """Yield the column that a statement names by itself, its key or its model's attribute."""
    table: Any = statement.table
    if not isinstance(name, str):
        name = getattr(name, "__clause_element__", lambda: name)()
        column = _column_of(name)
        if column is not None:
            yield column
            return
        name = getattr(name, "key", None)
    mapper = table._annotations.get("parentmapper")
    mapped = None if mapper is None else mapper.columns.get(name)
    column = mapped if mapped is not None else table.c.get(name)
    root = _column_of(column)
    if root is not None:
        yield root


def _is_encrypted_for(column: Column[Any], value: Any) -> bool:
    """Tell whether a value is NULL, is encrypted when it is bound, or is an envelope already."""
    value = getattr(value, "__clause_element__", lambda: value)()
    while isinstance(value, Label | Grouping):
        value = value.element
    if not isinstance(value, ClauseElement) or isinstance(value, Null):
        return True  # a Python value is bound with the column's type
    if isinstance(value, BindParameter):
        kind = value.type
        return kind._isnull or isinstance(kind, Envelope) or _is_bound_to(kind, column)
    if isinstance(value, ScalarSelect):
        rows = list(_rows_of(value.element))
        return all(row and _is_encrypted_for(column, row[0]) for row in rows)
    return _column_of(value) is column


def _is_bound_to(kind: Any, column: Column[Any]) -> bool:
    own: Any = column.type
    return isinstance(kind, Encrypted) and kind.associated_data() == own.associated_data()


# Columns


def _column_of(expression: Any) -> Column[Any] | None:
    """Return the encrypted column whose envelopes an expression gives unchanged, if any."""
    kind = _type_of(expression)
    if isinstance(kind, Encrypted) and kind.place is not None:
        own = kind.place.column
        if any(root is own for root in _roots_of(expression)):
            return own
    return None


def _roots_of(expression: Any) -> list[Any]:
    """Return the tables' columns that an expression is a reference to, without annotations."""
    return [root._deannotate() for root in getattr(expression, "base_columns", ())]


def _type_of(expression: Any) -> Any:
    return getattr(expression, "type", None)


def _refuse(*expressions: Any) -> None:
    """Refuse encrypted values, where the database would compare or change their envelopes."""
    for expression in expressions:
        kind = _type_of(expression)
        if isinstance(kind, Encrypted) and not isinstance(expression, BindParameter):
            raise refusal(kind)


def _plain(column: Column[Any]) -> NotEncrypted:
    return NotEncrypted(
        f"{column} cannot be encrypted: its value is an SQL expression or a default of the "
        "database, which would be stored as plain text: give a value of Python"
    )
