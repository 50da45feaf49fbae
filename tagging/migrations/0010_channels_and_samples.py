"""Several channels in a recipe: their names and results; samples, purposes and pinned lists of runs."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("prompts", "0002_frozen_versions"),
        ("tagging", "0009_published_thresholds"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="channel",
            name="name",
            field=models.SlugField(
                blank=True,
                default="",
                help_text="Unique within the recipe: what its tags name as their source.",
                max_length=80,
            ),
        ),
        migrations.AddField(
            model_name="channel",
            name="role",
            field=models.CharField(
                choices=[("asked", "asked about each image"), ("merge", "merges what the others said")],
                default="asked",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="channel",
            name="variables",
            field=models.JSONField(blank=True, default=dict, help_text="Values of the prompt's free variables."),
        ),
        migrations.AddField(
            model_name="chunk",
            name="n_fallback",
            field=models.PositiveIntegerField(
                default=0,
                help_text="Images whose merging model gave nothing usable: the weighted union stands instead.",
            ),
        ),
        migrations.AddField(
            model_name="proposal",
            name="flags",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="What a person should know of how it came about, e.g. merge_fallback, truncated, failed:wd.",
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="purpose",
            field=models.CharField(
                choices=[("tagging", "tagging"), ("trial", "trial"), ("experiment", "experiment")],
                default="tagging",
                help_text="Trials of the workbench and runs of an experiment are left out of the lists of runs.",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="sample",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="Which answer of several to the same question: part of the key of its predictions."
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="wordlists",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="Lists that its prompts write out: slug → the version that counts for it.",
            ),
        ),
        migrations.AlterField(
            model_name="chunk",
            name="stage",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="Position of the channel it computes; the one after the last combines them."
            ),
        ),
        migrations.AlterField(
            model_name="chunk",
            name="state",
            field=models.PositiveSmallIntegerField(
                choices=[(0, "pending"), (1, "leased"), (2, "done"), (3, "waits for the stage before")], default=0
            ),
        ),
        migrations.AlterField(
            model_name="proposal",
            name="prediction",
            field=models.ForeignKey(
                blank=True,
                help_text="Of the only channel, or of the first that answered: ChannelResult has those of all.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="proposals",
                to="tagging.prediction",
            ),
        ),
        migrations.AlterField(
            model_name="recipe",
            name="combine",
            field=models.JSONField(
                default=dict, help_text='As `policy.combine.CombineSpec` validates it, e.g. {"rule": "single"}.'
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["purpose", "-id"], name="run_listed"),
        ),
        migrations.AddConstraint(
            model_name="channel",
            constraint=models.UniqueConstraint(fields=("recipe", "name"), name="channel_name"),
        ),
        migrations.CreateModel(
            name="ChannelResult",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id", "stage", "image_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("stage", models.PositiveSmallIntegerField(help_text="Position of the channel.")),
                (
                    "state",
                    models.CharField(
                        choices=[("ok", "ok"), ("empty", "empty"), ("error", "error"), ("skipped", "not asked")],
                        max_length=8,
                    ),
                ),
                ("note", models.TextField(blank=True, help_text="The error, or why the channel was not asked.")),
                (
                    "image",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="channel_results",
                        to="tagging.imageasset",
                    ),
                ),
                (
                    "prediction",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="channel_results",
                        to="tagging.prediction",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="channel_results",
                        to="tagging.run",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ("ok", "empty")), models.Q(("note", ""), _negated=True), _connector="OR"
                        ),
                        name="channelresult_note",
                    )
                ],
            },
        ),
    ]
