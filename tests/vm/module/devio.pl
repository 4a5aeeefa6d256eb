#!/usr/bin/perl
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs in the guest and makes the system calls that a test asks for. A line on standard
# input holds one or more operations, separated by " ; ". They are carried out without a
# pause, and one line with all answers goes back. An answer is what the system call
# returned, or minus its errno, as in the kernel; or text, in which "%", ";" and newlines
# are written %XX.
#
# A message is given by its length, or as LENGTH@WHERE with a bad address:
#	@null	no page is there		@torn	its last byte has no page
#	@kernel	outside user space
#
# usage: perl devio.pl SECONDS, the limit for operations that wait for something.
#
# No Perl module is used, because loading one takes longer than most tests. So constants
# are written as numbers: those of system calls are from x86-64's unistd_64.h, the others
# from include/uapi.

use strict;

my %NR = (
	read => 0, write => 1, open => 2, close => 3, poll => 7, lseek => 8, mmap => 9,
	munmap => 11, rt_sigaction => 13, pwrite => 18, writev => 20, pipe => 22,
	sendfile => 40, fcntl => 72, sched_setscheduler => 144, delete_module => 176,
	sched_setaffinity => 203, io_setup => 206, io_submit => 209, clock_gettime => 228,
	epoll_wait => 232, epoll_ctl => 233, splice => 275, epoll_create1 => 291,
	finit_module => 313,
);
my %OPEN = (r => 00, w => 01, rw => 02, nonblock => 04000);
my ($ETIMEDOUT, $ESRCH) = (110, 3);
my $PAGE = 4096;

my $node = '/dev/eudyptula';
my $attributes = '/sys/class/misc/eudyptula';
my $fd = -1;			# of the node, of the last open()
my $epoll;			# descriptor of the epoll instance
my $handled = 0;		# signals that reached a handler
my %pipe_of;			# job -> handle on which its answer comes
my $log;			# handle on /dev/kmsg
my $fail_nth;			# handle on this process's fail-nth
my $PATIENCE = $ARGV[0];
my $payload = join('', map { chr(ord('a') + $_ % 26) } 0 .. 2 * $PAGE - 1);

# The system call $name: what it returned, or minus its errno. The arguments stay in @_,
# where they are the caller's own variables, which the kernel may have to write to.
sub call {
	my $name = shift;
	my $got = syscall($NR{$name}, @_);
	return $got == -1 ? -$! : $got;
}

sub address_of { return unpack('Q', pack('P', $_[0])) }

# Address and length of a message such as 10 or 10@torn.
my $cliff;			# address of the first byte behind two pages of memory
sub message {
	my ($length, $where) = split(/@/, $_[0]);
	$length += 0;
	return (address_of($payload), $length) if !$where;
	return (0, $length) if $where eq 'null';
	return (-(1 << 40), $length) if $where eq 'kernel';
	if (!$cliff) {
		# PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
		$cliff = 2 * $PAGE + call('mmap', 0, 3 * $PAGE, 3, 0x22, -1, 0);
		call('munmap', $cliff, $PAGE);
	}
	return ($cliff + 1 - $length, $length);
}

sub escaped {
	my ($text) = @_;
	$text =~ s/([%;\r\n])/sprintf('%%%02X', ord($1))/ge;
	return $text;
}

sub content {
	my ($path) = @_;
	open(my $file, '<', $path) or return undef;
	local $/;
	my $text = readline($file);
	return defined($text) ? $text : '';
}

sub counter { return 0 + content("$attributes/$_[0]") }

# The kernel threads of that name, which have no command line.
sub pids {
	my ($name) = @_;
	opendir(my $folder, '/proc') or die "/proc: $!";
	my @pids = grep { /^\d+$/ } readdir($folder);
	return grep {
		my $comm = content("/proc/$_/comm");
		defined($comm) && $comm eq "$name\n" && content("/proc/$_/cmdline") eq '';
	} @pids;
}

# Call $condition until it is true, every 2 ms, or without a sleep if $busy; false if that
# takes too long.
sub until_true {
	my ($condition, $busy) = @_;
	my $end = time() + $PATIENCE;
	while (!$condition->()) {
		return 0 if time() > $end;
		select(undef, undef, undef, 0.002) if !$busy;
	}
	return 1;
}

# Fork a process that carries out $work and writes what it returns to a pipe.
sub start {
	my ($work) = @_;
	pipe(my $reader, my $writer) or die "pipe: $!";
	my $pid = fork();
	die "fork: $!" if !defined($pid);
	if (!$pid) {
		syswrite($writer, $work->() . "\n");
		exit(0);
	}
	$pipe_of{$pid} = $reader;
	return $pid;
}

# What the job answered; "killed N" if signal N ended it.
sub result {
	my ($pid) = @_;
	my $reader = delete($pipe_of{$pid}) or return -$ESRCH;
	my $ready = '';
	vec($ready, fileno($reader), 1) = 1;
	select($ready, undef, undef, $PATIENCE) or return -$ETIMEDOUT;
	my $answer = readline($reader);
	waitpid($pid, 0);
	chomp($answer) if defined($answer);
	return defined($answer) ? $answer : 'killed ' . ($? & 127);
}

my %operation = (
	# open r|w|rw [nonblock]
	open => sub {
		my $flags = 0;
		$flags |= $OPEN{$_} for @_;
		my $got = call('open', $node, $flags, 0);
		$fd = $got if $got >= 0;
		return $got;
	},
	close => sub { return call('close', $fd) },
	# nonblock 0|1
	nonblock => sub { return call('fcntl', $fd, 4, $OPEN{w} | ($_[0] ? $OPEN{nonblock} : 0)) },

	write => sub { return call('write', $fd, message($_[0])) },
	# text HEX: one message with these bytes
	text => sub { my $text = pack('H*', $_[0]); return call('write', $fd, $text, length($text)) },
	writev => sub {
		my $iovec = pack('Q*', map { unpack('Q2', pack('q2', message($_))) } @_);
		return call('writev', $fd, $iovec, scalar(@_));
	},
	# repeat COUNT MESSAGE: how many of COUNT writes were accepted before one failed
	repeat => sub {
		my ($count, $message) = @_;
		my ($address, $length) = message($message);
		for my $done (0 .. $count - 1) {
			return $done if syscall($NR{write}, $fd, $address, $length) != $length;
		}
		return $count;
	},
	# refused COUNT ERRNO MESSAGE: how many of COUNT writes failed with ERRNO
	refused => sub {
		my ($count, $errno, $message) = @_;
		return scalar(grep { call('write', $fd, message($message)) == -$errno } 1 .. $count);
	},
	read => sub { my $buffer = ' ' x 16; return call('read', $fd, $buffer, 16) },
	lseek => sub { return call('lseek', $fd, 0, $_[0] + 0) },
	pwrite => sub { return call('pwrite', $fd, message($_[0]), 0) },
	splice => sub {
		pipe(my $reader, my $writer) or die "pipe: $!";
		syswrite($writer, 'through a pipe');
		return call('splice', fileno($reader), 0, $fd, 0, 14, 0);
	},
	sendfile => sub {
		open(my $file, '<', '/etc/passwd') or die "/etc/passwd: $!";
		return call('sendfile', $fd, fileno($file), 0, 16);
	},
	io_submit => sub {
		my $context = "\0" x 8;
		my $got = call('io_setup', 1, $context);
		return $got if $got < 0;
		# struct iocb, IOCB_CMD_PWRITE
		my $iocb = pack('Q L L S s L Q Q q Q L L',
				0, 0, 0, 1, 0, $fd, message($_[0]), 0, 0, 0, 0);
		return call('io_submit', unpack('q', $context), 1, pack('P', $iocb));
	},

	# poll MILLISECONDS: the events that there were, of all that could be
	poll => sub {
		my $set = pack('l s s', $fd, 0x3ff, 0);
		my $got = call('poll', $set, 1, $_[0] + 0);
		return $got < 0 ? $got : (unpack('l s s', $set))[2];
	},
	# epoll FLAG: watch for EPOLLOUT | FLAG
	epoll => sub {
		$epoll = call('epoll_create1', 0);
		my $event = pack('L Q', 4 | $_[0], 0);
		return call('epoll_ctl', $epoll, 1, $fd, $event);
	},
	epoll_wait => sub {
		my $event = pack('L Q', 0, 0);
		my $got = call('epoll_wait', $epoll, $event, 1, $_[0] + 0);
		return $got <= 0 ? $got : (unpack('L Q', $event))[0];
	},

	# handler NAME interrupt|restart: count signal NAME; SA_RESTART or not
	handler => sub {
		my ($name, $how) = @_;
		$SIG{$name} = sub { $handled++ };
		return 0 if $how ne 'restart';
		# What perl has just installed, with SA_RESTART added.
		my %number = (USR1 => 10);
		my $action = "\0" x 32;
		call('rt_sigaction', $number{$name}, 0, $action, 8);
		my @fields = unpack('Q4', $action);
		return call('rt_sigaction', $number{$name},
			    pack('Q4', $fields[0], $fields[1] | 0x10000000, @fields[2, 3]), 0, 8);
	},
	handled => sub { return $handled },
	# fail_nth N: make the N-th operation of this process that can be made to fail do so, as
	# an allocation. Answers what the previous order has left: 0 if its failure has happened
	fail_nth => sub {
		sysopen($fail_nth, "/proc/$$/fail-nth", $OPEN{rw}) or return -$! if !$fail_nth;
		sysseek($fail_nth, 0, 0);
		sysread($fail_nth, my $left, 16);
		return syswrite($fail_nth, $_[0]) ? $left + 0 : -$!;
	},
	kill => sub { return kill($_[1], $_[0]) ? 0 : -$! },
	result => \&result,
	# spin: use the processor until killed. Five times the usual limit, because filling the
	# queue byte by byte takes longer than other operations; but not for ever
	spin => sub { alarm(5 * $PATIENCE); 1 while 1 },

	# schedule PID PRIORITY: SCHED_FIFO, or SCHED_OTHER if it is 0; PID 0 is this process
	schedule => sub {
		my ($pid, $priority) = @_;
		return call('sched_setscheduler', $pid + 0, $priority ? 1 : 0, pack('l', $priority));
	},
	# pin PID CPU
	pin => sub { return call('sched_setaffinity', $_[0] + 0, 8, pack('Q', 1 << $_[1])) },
	# pids NAME: of the kernel threads of that name
	pids => sub { return join(' ', pids(@_)) },
	# stack_of NAME: what a kernel thread of that name is doing
	stack_of => sub { return escaped(content('/proc/' . (pids(@_))[0] . '/stack')) },

	exists => sub { return -e $_[0] ? 1 : 0 },
	cat => sub { my $text = content($_[0]); return defined($text) ? escaped($text) : -$! },
	# echo PATH WORDS...
	echo => sub {
		my ($path, @words) = @_;
		my $file = call('open', $path, $OPEN{w}, 0);
		return $file if $file < 0;
		my $text = "@words\n";
		my $got = call('write', $file, $text, length($text));
		call('close', $file);
		return $got < 0 ? $got : 0;
	},
	# await PATH REGEX: the content once it matches, or when it takes too long
	await => sub {
		my ($path, @regex) = @_;
		my $text;
		until_true(sub { $text = content($path); defined($text) && $text =~ /@regex/ });
		return defined($text) ? escaped($text) : -$!;
	},
	counters => sub { return join(' ', map { counter($_) } qw(consumed accepted pending blocked)) },
	# idle [busy]: wait until everything that was accepted has been consumed
	idle => sub {
		my $idle = sub { counter('consumed') == counter('accepted') };
		return until_true($idle, @_ > 0) ? 0 : -$ETIMEDOUT;
	},
	# blocked_beyond COUNT: wait until more writers than that had to wait
	blocked_beyond => sub {
		my ($count) = @_;
		return until_true(sub { counter('blocked') > $count }) ? 0 : -$ETIMEDOUT;
	},
	# watch COUNT: in so many looks at the counters, how often they contradicted each other
	watch => sub {
		my $wrong = 0;
		for (1 .. $_[0]) {
			my $consumed = counter('consumed');
			my $accepted = counter('accepted');
			my $pending = counter('pending');
			$wrong++ if $consumed > $accepted || $pending > 65536;
		}
		return $wrong;
	},
	# flood PATH: open, write and close until that file is there; how many messages were
	# accepted, and how many open()s and write()s failed
	flood => sub {
		my ($end) = @_;
		my ($accepted, $no_open, $no_write) = (0, 0, 0);
		while (!-e $end || !$accepted) {
			my $file = call('open', $node, $OPEN{w}, 0);
			if ($file < 0) {
				$no_open++;
				next;
			}
			call('write', $file, message(512)) == 512 ? $accepted++ : $no_write++;
			call('close', $file);
		}
		return "$accepted $no_open $no_write";
	},

	# log: what the kernel has logged since the last time this was asked
	log => sub {
		if (!$log) {
			# O_NONBLOCK; SEEK_END
			sysopen($log, '/dev/kmsg', $OPEN{r} | $OPEN{nonblock}) or return -$!;
			call('lseek', fileno($log), 0, 2);
		}
		my ($text, $record) = ('', '');
		# A record is PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT, where bytes that cannot
		# be printed, and the backslash, are \xXX.
		while (sysread($log, $record, 8192)) {
			$record =~ s/^[^;]*;//;
			$text .= $record =~ s/\\x([0-9a-f]{2})/chr(hex($1))/ger;
		}
		# EAGAIN: all has been read. Else (EPIPE) a part was overwritten before.
		return $!{EAGAIN} ? escaped($text) : -$!;
	},
	clock => sub {
		my $time = "\0" x 16;
		call('clock_gettime', 1, $time);	# CLOCK_MONOTONIC
		my ($seconds, $nanoseconds) = unpack('q q', $time);
		return $seconds * 1000000000 + $nanoseconds;
	},
	pid => sub { return $$ },
	insmod => sub {
		open(my $file, '<', $_[0]) or return -$!;
		my $options = '';
		return call('finit_module', fileno($file), $options, 0);
	},
	rmmod => sub { return call('delete_module', $_[0], $OPEN{nonblock}) },
	# rmmod_at_last NAME: unload it as soon as nobody has the device open
	rmmod_at_last => sub {
		my ($name) = @_;
		return until_true(sub { call('delete_module', $name, $OPEN{nonblock}) == 0 }, 'busy')
			? 0 : -$ETIMEDOUT;
	},
);

sub carry_out {
	my ($line) = @_;
	return join(' ; ', map {
		my ($name, @words) = split(' ', $_);
		my $work = $operation{$name} or die "no operation named $name\n";
		$work->(@words);
	} split(/ ; /, $line));
}

# start OPERATIONS: carry them out in a process of their own; its process id. All that
# follows on the line belongs to it.
$| = 1;
while (defined(my $line = readline(STDIN))) {
	chomp($line);
	if ($line =~ s/^start //) {
		print start(sub { carry_out($line) }), "\n";
	} else {
		print carry_out($line), "\n";
	}
}
