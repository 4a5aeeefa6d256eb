// SPDX-License-Identifier: GPL-2.0-only
/*
 * A suite of KUnit tests: one that passes and one that is skipped.
 */
#include <kunit/test.h>
#include <linux/module.h>

static void planted_adds(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, 1 + 2, 3);
}

static void planted_skips(struct kunit *test)
{
	kunit_skip(test, "not here");
}

static struct kunit_case planted_cases[] = {
	KUNIT_CASE(planted_adds),
	KUNIT_CASE(planted_skips),
	{}
};

static struct kunit_suite planted_suite = {
	.name = "planted",
	.test_cases = planted_cases,
};
kunit_test_suite(planted_suite);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KUnit tests");
