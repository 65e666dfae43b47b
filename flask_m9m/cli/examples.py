"""The examples that end the help of each command."""

from __future__ import annotations

import click

EXAMPLES: dict[str, str] = {
    "": """
flask m9m init                 write .env and config.yaml
flask m9m doctor               find security problems, each with its fix
flask --app shop m9m routes    what every route of shop.py requires""",
    "init": """
flask m9m init""",
    "secret": """
flask m9m secret
flask m9m secret --bytes 64
flask m9m secret --add M9M_ENCRYPTION_KEY""",
    "config": """
flask m9m config show
flask m9m config validate""",
    "config show": """
flask m9m config show
flask m9m config show -o json""",
    "config validate": """
flask m9m config validate
flask --app shop m9m config validate""",
    "config get": """
flask m9m config get security.jwt.expiration
flask m9m config get security.cors""",
    "config schema": """
flask m9m config schema > config.schema.json""",
    "doctor": """
flask m9m doctor
flask m9m doctor --level high
flask m9m doctor --ignore limiter-off -o json""",
    "token": """
flask m9m token issue ada --scope items:read --expires 1h
flask m9m token revoke --subject ada""",
    "token issue": """
flask m9m token issue ada
flask m9m token issue ada --scope items:read --role admin --expires 1h""",
    "token inspect": """
flask m9m token inspect
flask m9m token inspect - < token.txt""",
    "token revoke": """
flask m9m token revoke - < token.txt
flask m9m token revoke --subject ada --keys""",
    "user": """
flask m9m user create ada --scope items:read
flask m9m user passwd ada""",
    "user create": """
flask m9m user create ada
flask m9m user create ada --scope items:read --role admin < password.txt""",
    "user list": """
flask m9m user list
flask m9m user list -o json""",
    "user show": """
flask m9m user show ada""",
    "user update": """
flask m9m user update ada --scope items:read --scope items:write
flask m9m user update ada --no-roles""",
    "user delete": """
flask m9m user delete ada
flask m9m user delete ada --yes""",
    "user sessions": """
flask m9m user sessions ada""",
    "user revoke-sessions": """
flask m9m user revoke-sessions ada
flask m9m user revoke-sessions ada --session 2f6c1f5a8f0b4f0e""",
    "user passwd": """
flask m9m user passwd ada
flask m9m user passwd ada < password.txt""",
    "user disable": """
flask m9m user disable ada""",
    "user enable": """
flask m9m user enable ada""",
    "apikey": """
flask m9m apikey create ci --owner ada --scope items:read --expires 90d
flask m9m apikey list --unused 90d""",
    "apikey create": """
flask m9m apikey create ci --owner ada --scope items:read
flask m9m apikey create ci --owner ada --expires 90d --rate-limit 100/hour""",
    "apikey list": """
flask m9m apikey list --owner ada
flask m9m apikey list --unused 90d -o json""",
    "apikey revoke": """
flask m9m apikey revoke 2f6c1f5a8f0b4f0e""",
    "apikey rotate": """
flask m9m apikey rotate 2f6c1f5a8f0b4f0e --grace 1h""",
    "apikey prune": """
flask m9m apikey prune --unused 365d""",
    "credential": """
flask m9m credential create Slack --type slackApi --data @slack.json
flask m9m credential rotate""",
    "credential create": """
flask m9m credential create Slack --type slackApi
flask m9m credential create Slack --type slackApi --owner ada --data @slack.json""",
    "credential list": """
flask m9m credential list
flask m9m credential list -o json""",
    "credential get": """
flask m9m credential get 2f6c1f5a8f0b4f0e
flask m9m credential get 2f6c1f5a8f0b4f0e --show""",
    "credential update": """
flask m9m credential update 2f6c1f5a8f0b4f0e --name "Slack, new"
flask m9m credential update 2f6c1f5a8f0b4f0e --data @slack.json""",
    "credential delete": """
flask m9m credential delete 2f6c1f5a8f0b4f0e""",
    "credential rotate": """
flask m9m credential rotate""",
    "columns": """
flask m9m columns list
flask m9m columns encrypt --dry-run""",
    "columns list": """
flask m9m columns list
flask m9m columns list -o json""",
    "columns encrypt": """
flask m9m columns encrypt --dry-run
flask m9m columns encrypt accounts.token""",
    "credential import": """
flask m9m credential import n8n.json --from n8n --dry-run
flask m9m credential import n8n.json --from n8n --owner ada""",
    "credential export": """
flask m9m credential export --to n8n --output n8n.json""",
    "credential audit": """
flask m9m credential audit 2f6c1f5a8f0b4f0e""",
    "audit": """
flask m9m audit list --since 24h
flask m9m audit verify""",
    "audit list": """
flask m9m audit list --since 24h --event authentication_failed
flask m9m audit list --subject ada --limit 20 -o json""",
    "audit verify": """
flask m9m audit verify""",
    "db": """
flask m9m db status
flask m9m db upgrade""",
    "db upgrade": """
flask m9m db upgrade""",
    "db status": """
flask m9m db status -o json""",
    "cors": """
flask m9m cors check https://app.example.com PUT /items""",
    "cors check": """
flask m9m cors check https://app.example.com GET /items
flask m9m cors check https://app.example.com PUT /items --header Content-Type""",
    "routes": """
flask m9m routes
flask m9m routes --public
flask m9m routes --endpoint "admin.*" --wide
flask m9m routes --fail-on undecided --fail-on public --allow "status.*\"""",
    "limits": """
flask m9m limits top
flask m9m limits show 203.0.113.7""",
    "limits show": """
flask m9m limits show 203.0.113.7
flask m9m limits show identity:ada""",
    "limits reset": """
flask m9m limits reset 203.0.113.7
flask m9m limits reset account:ada""",
    "limits top": """
flask m9m limits top -n 5""",
    "serve": """
flask m9m serve --dev
flask m9m serve --host 0.0.0.0 --workers 4 --access-log""",
}
"""The examples by the command's name after `flask m9m`."""


def add_examples(command: click.Command, name: str = "") -> None:
    """Put the examples into the help of a command and of those below it."""
    if name in EXAMPLES:
        lines = "\n".join(f"  {line}" for line in EXAMPLES[name].strip().splitlines())
        command.epilog = f"\b\nExamples:\n{lines}"
    for below, inner in getattr(command, "commands", {}).items():
        add_examples(inner, f"{name} {below}".strip())


def keep_whole(group: click.Group) -> None:
    """Keep the first sentences of commands whole in lists of commands, which else cut them off."""
    for command in group.commands.values():
        command.short_help = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        if isinstance(command, click.Group):
            keep_whole(command)
