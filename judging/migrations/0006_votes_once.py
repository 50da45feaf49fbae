"""A person, or a judge, votes once on a pair and an image: the database holds it. Doubles that two tabs or two jobs made
are taken away first; the earliest stays."""

from django.conf import settings
from django.db import migrations, models

DOUBLES = """
DELETE FROM judging_vote
WHERE (by_id IS NOT NULL OR judge <> '')
AND id NOT IN (SELECT MIN(id) FROM judging_vote GROUP BY experiment_id, image_id, a_id, b_id, by_id, judge)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("judging", "0005_gate_automatic"),
        ("tagging", "0018_model_listings"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(DOUBLES, migrations.RunSQL.noop),
        migrations.AddConstraint(
            model_name="vote",
            constraint=models.UniqueConstraint(
                condition=models.Q(("by__isnull", False)),
                fields=("experiment", "image", "a", "b", "by"),
                name="vote_person_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="vote",
            constraint=models.UniqueConstraint(
                condition=models.Q(("experiment__isnull", False), models.Q(("judge", ""), _negated=True)),
                fields=("experiment", "image", "a", "b", "judge"),
                name="vote_judge_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="vote",
            constraint=models.UniqueConstraint(
                condition=models.Q(("experiment__isnull", True), models.Q(("judge", ""), _negated=True)),
                fields=("image", "a", "b", "judge"),
                name="vote_judge_once_apart",
            ),
        ),
    ]
