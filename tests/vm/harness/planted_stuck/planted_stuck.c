// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that keeps a part of the kernel from going on, in the way that "act"
 * names when it is loaded; insmod itself ends well. Those that begin with
 * "healthy" do the same but for the fault.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/namei.h>
#include <linux/rcupdate.h>
#include <linux/rtnetlink.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/string.h>

static char *act = "";
module_param(act, charp, 0);

/* For "hold" and "take": a lock of the kernel's that no module can name, by its address and its type. */
static unsigned long lock;
module_param(lock, ulong, 0);
static char *type = "";
module_param(type, charp, 0);

static struct task_struct *thread;
static DEFINE_MUTEX(mutex);
static DEFINE_MUTEX(planted_own);
static struct path passwd;

/* On a kernel without preemption nothing else runs on this CPU any more. */
static noinline int planted_spin(void *data)
{
	while (!kthread_should_stop())
		cpu_relax();
	return 0;
}

/* It lets others run, and does nothing that anybody has asked for. */
static noinline int planted_busy(void *data)
{
	while (!kthread_should_stop()) {
		cpu_relax();
		cond_resched();
	}
	return 0;
}

/* As long as that is no mistake yet, and most of the time. */
static noinline int planted_works(void *data)
{
	while (!kthread_should_stop()) {
		unsigned long end = jiffies + HZ / 10;

		while (time_before(jiffies, end))
			cond_resched();
		msleep(5);
	}
	return 0;
}

static noinline int planted_reads(void *data)
{
	/* It does not sleep in there: the kernel would say something. */
	rcu_read_lock();
	while (!kthread_should_stop())
		cpu_relax();
	rcu_read_unlock();
	return 0;
}

/* A lock that its own task has already: on a debug kernel lockdep says so first. */
static noinline int planted_deadlock(void *data)
{
	mutex_lock(&mutex);
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	return 0;
}

/* Not interruptible either, and for a time. */
static noinline int planted_sleeps(void *data)
{
	while (!kthread_should_stop())
		msleep(20);
	return 0;
}

/* The types "own" and "inode" need no address. */
static void take_lock(void)
{
	if (!strcmp(type, "own"))
		mutex_lock(&planted_own);
	else if (!strcmp(type, "inode"))
		inode_lock(d_inode(passwd.dentry));
	else if (!strcmp(type, "mutex"))
		mutex_lock((struct mutex *)lock);
	else if (!strcmp(type, "semaphore"))
		down((struct semaphore *)lock);
	else
		down_write((struct rw_semaphore *)lock);
}

static void give_lock(void)
{
	if (!strcmp(type, "own"))
		mutex_unlock(&planted_own);
	else if (!strcmp(type, "inode"))
		inode_unlock(d_inode(passwd.dentry));
	else if (!strcmp(type, "mutex"))
		mutex_unlock((struct mutex *)lock);
	else if (!strcmp(type, "semaphore"))
		up((struct semaphore *)lock);
	else
		up_write((struct rw_semaphore *)lock);
}

/*
 * Who uses the module, as drivers write that down: laid out as a mutex that its owner has taken, and
 * with a count of the task, which may end.
 */
struct client {
	struct task_struct *task;
	unsigned long calls;
	struct list_head requests;
};

static struct client *client;

static int remember(void)
{
	client = kzalloc(sizeof(*client), GFP_KERNEL);
	if (!client)
		return -ENOMEM;
	client->task = get_task_struct(current);
	INIT_LIST_HEAD(&client->requests);
	return 0;
}

static void forget(void)
{
	if (!client)
		return;
	put_task_struct(client->task);
	kfree(client);
}

/*
 * A thread and where it sleeps, also laid out as a mutex that its owner has taken. Nobody counts a
 * thread that was stopped, and its address stays.
 */
struct sleeper {
	struct task_struct *thread;
	wait_queue_head_t queue;
	unsigned long began;
};

static struct sleeper *sleeper;
static struct sleeper own_sleeper;

static int planted_waits(void *data)
{
	struct sleeper *one = data;

	WRITE_ONCE(one->began, 1);
	wait_event_interruptible(one->queue, kthread_should_stop());
	return 0;
}

static int start_and_stop(struct sleeper *one)
{
	init_waitqueue_head(&one->queue);
	one->thread = kthread_run(planted_waits, one, "planted_stuck");
	if (IS_ERR(one->thread))
		return PTR_ERR(one->thread);
	while (!READ_ONCE(one->began)) /* one that has not begun is stopped with -EINTR */
		msleep(1);
	return kthread_stop(one->thread);
}

static int sleep_twice(void)
{
	sleeper = kzalloc(sizeof(*sleeper), GFP_KERNEL);
	if (!sleeper)
		return -ENOMEM;
	return start_and_stop(sleeper) ?: start_and_stop(&own_sleeper);
}

/* The thread sleeps, and is not to be blamed for anything else. */
static noinline int planted_holds(void *data)
{
	take_lock();
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	give_lock();
	return 0;
}

static noinline int planted_gives_back(void *data)
{
	take_lock();
	give_lock();
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

/* As a reader, which is in the way of nobody who is a reader too. */
static noinline int planted_keeps_cpus(void *data)
{
	cpus_read_lock();
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	cpus_read_unlock();
	return 0;
}

static noinline int planted_asks_for_cpus(void *data)
{
	while (!kthread_should_stop()) {
		cpus_read_lock();
		cpus_read_unlock();
		schedule_timeout_interruptible(HZ);
	}
	return 0;
}

static int run(int (*what)(void *), int cpu)
{
	thread = kthread_create(what, NULL, "planted_stuck");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	if (cpu >= 0)
		kthread_bind(thread, cpu);
	wake_up_process(thread);
	return 0;
}

/* Done by whoever writes to the parameter "poke". */
static int poked(const char *value, const struct kernel_param *param)
{
	if (!strcmp(act, "reader"))
		rcu_read_lock();
	if (!strcmp(act, "healthy_reader")) {
		rcu_read_lock();
		rcu_read_unlock();
	}
	/* Not while it is loaded, which takes some of these locks as well. */
	if (!strcmp(act, "hold"))
		return run(planted_holds, -1);
	if (!strcmp(act, "healthy_hold"))
		return run(planted_gives_back, -1);
	/* By the process that asks for it, which ends before long. */
	if (!strcmp(act, "take"))
		take_lock();
	if (!strcmp(act, "healthy_client"))
		return remember();
	if (!strcmp(act, "healthy_sleeper"))
		return sleep_twice();
	if (!strcmp(act, "healthy_take")) {
		take_lock();
		give_lock();
	}
	return 0;
}

static const struct kernel_param_ops poke_ops = { .set = poked };
module_param_cb(poke, &poke_ops, NULL, 0200);

static int __init planted_stuck_init(void)
{
	int err = kern_path("/etc/passwd", 0, &passwd);

	if (err)
		return err;
	if (!strcmp(act, "rtnl"))
		rtnl_lock();
	if (!strcmp(act, "healthy_rtnl")) {
		rtnl_lock();
		rtnl_unlock();
	}
	if (!strcmp(act, "spin"))
		return run(planted_spin, 1);
	if (!strcmp(act, "busy"))
		return run(planted_busy, -1);
	if (!strcmp(act, "busy_1"))
		return run(planted_busy, 1);
	if (!strcmp(act, "healthy_busy"))
		return run(planted_works, -1);
	if (!strcmp(act, "rcu"))
		return run(planted_reads, -1);
	if (!strcmp(act, "deadlock"))
		return run(planted_deadlock, -1);
	if (!strcmp(act, "cpus"))
		return run(planted_keeps_cpus, -1);
	if (!strcmp(act, "healthy_cpus"))
		return run(planted_asks_for_cpus, -1);
	if (!strcmp(act, "healthy_sleep"))
		return run(planted_sleeps, -1);
	return 0;
}

static void __exit planted_stuck_exit(void)
{
	if (!IS_ERR_OR_NULL(thread))
		kthread_stop(thread);
	forget();
	kfree(sleeper);
	path_put(&passwd);
}

module_init(planted_stuck_init);
module_exit(planted_stuck_exit);

MODULE_DESCRIPTION("Keeps a part of the kernel from going on");
MODULE_LICENSE("GPL");
