/* The C twin of the spawn pipeline: forks N children that tie themselves to
 * their parent as guestinit's workers do, count themselves in and wait at a
 * futex. Prints the nanoseconds from the first fork until all are counted. */
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

struct shared {
	atomic_uint gate, count;
};

static void child(struct shared *s, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	setpgid(0, 0);
	signal(SIGUSR1, SIG_IGN);
	syscall(SYS_close_range, 3, ~0U, 0);
	atomic_fetch_add(&s->count, 1);
	syscall(SYS_futex, &s->count, FUTEX_WAKE, 1, NULL, NULL, 0);
	while (!atomic_load(&s->gate))
		syscall(SYS_futex, &s->gate, FUTEX_WAIT, 0, NULL, NULL, 0);
	_exit(0);
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 100;
	pid_t self = getpid();
	struct shared *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return 1;
	long long start = now();
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid == 0)
			child(s, self);
		if (pid < 0) {
			perror("fork");
			return 1;
		}
	}
	for (unsigned c; (c = atomic_load(&s->count)) < (unsigned)n;)
		syscall(SYS_futex, &s->count, FUTEX_WAIT, c, NULL, NULL, 0);
	printf("%lld\n", now() - start);
	atomic_store(&s->gate, 1);
	syscall(SYS_futex, &s->gate, FUTEX_WAKE, n, NULL, NULL, 0);
	while (wait(NULL) > 0)
		;
	return 0;
}
