"""One round of questions: asked, answered, judged and measured, into an `Audit`."""
