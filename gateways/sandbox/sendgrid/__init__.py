"""A local SendGrid: takes mails as SendGrid does, keeps them as files, sends none."""
