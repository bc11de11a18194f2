/* The C twin of futex_ping_pong with spin_iters 0: two processes that hand one
 * shared futex word to and fro. Prints the hand-overs there and back per second.
 *
 * Usage: futex SECONDS [TIMEOUT_MS]: a wait without a timeout, or with one. */
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
	atomic_uint word;
	char pad[60];
	atomic_uint stop;
};

static struct timespec limit, *timeout;

static long futex(atomic_uint *word, int op, unsigned value)
{
	return syscall(SYS_futex, word, op, value, op == FUTEX_WAIT ? timeout : NULL, NULL, 0);
}

static unsigned long long play(struct shared *s, unsigned mine)
{
	unsigned long long turns = 0;

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		atomic_store(&s->word, 1 - mine);
		futex(&s->word, FUTEX_WAKE, 1);
		while (atomic_load(&s->word) != mine) {
			if (atomic_load_explicit(&s->stop, memory_order_relaxed))
				return turns;
			futex(&s->word, FUTEX_WAIT, 1 - mine);
		}
		turns++;
	}
	return turns;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static struct shared *shared;

/* Ends a wait without a timeout; comes again if it came just before one. */
static void ring(int sig)
{
	(void)sig;
	atomic_store(&shared->stop, 1);
}

int main(int argc, char **argv)
{
	double begin, end;
	unsigned long long turns;
	pid_t child;

	if (argc < 2)
		return 2;
	if (argc > 2) {
		limit.tv_sec = atoi(argv[2]) / 1000;
		limit.tv_nsec = atoi(argv[2]) % 1000 * 1000000L;
		timeout = &limit;
	}
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	child = fork();
	if (child < 0)
		return 1;
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		play(shared, 1);
		_exit(0);
	}
	sigaction(SIGALRM, &(struct sigaction){.sa_handler = ring}, NULL);
	begin = now();
	setitimer(ITIMER_REAL, &(struct itimerval){{0, 10000}, {atoi(argv[1]), 0}}, NULL);
	turns = play(shared, 0);
	end = now();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	printf("%.1f\n", turns / (end - begin));
	return 0;
}
