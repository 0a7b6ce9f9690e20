"""Sends what is inserted into `outbox` by SMTP."""

import os
import smtplib
from email.message import EmailMessage

from pydantic import BaseModel

from triggerkit import AbortRun, Change, Queue, Retry, changes, task

#: The server is away or busy, and no message is to blame: all runs wait until it answers.
AWAY = (OSError, smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError)


class Mail(BaseModel):
    """A row of `outbox`."""

    id: int
    recipient: str
    subject: str
    body: str


@task(
    on=changes("public.outbox", actions=["insert"]),
    queue=Queue("mail", concurrency=5),
    retry=Retry(max_attempts=10, wait_for=AWAY),
)
def send_mail(change: Change[Mail]) -> str:
    """Send one mail. A mail sent twice has the same Message-ID, so that one of them is dropped."""
    message = compose(change.record)
    with smtplib.SMTP(
        os.environ.get("SMTP_HOST", "127.0.0.1"), int(os.environ.get("SMTP_PORT", "25")), timeout=30
    ) as server:
        try:
            server.send_message(message)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPResponseException) as error:
            if is_permanent(error):
                raise AbortRun("the mail server refuses this mail for good") from error
            raise
    return str(message["Message-ID"])


def compose(mail: Mail) -> EmailMessage:
    """Write the message; its Message-ID is the row's."""
    message = EmailMessage()
    message["From"] = os.environ.get("MAIL_FROM", "shop@example.com")
    message["To"] = mail.recipient
    message["Subject"] = mail.subject
    message["Message-ID"] = f"<outbox-{mail.id}@{message['From'].addresses[0].domain}>"
    message.set_content(mail.body)
    return message


def is_permanent(error: smtplib.SMTPException) -> bool:
    """Return whether the server's answer is 5xx: another attempt would get the same one."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500
