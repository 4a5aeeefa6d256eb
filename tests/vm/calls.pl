#!/usr/bin/perl
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs in the guest and makes system calls, each group of them in a process of its own and
# within a limit of time. So a call that never returns ends neither the test nor this program.
# tests/vm/calls.py sends it, and explains the answers.
#
# usage: perl calls.pl SECONDS. A group that takes longer than that is killed.
#
# A line on standard input is a group: operations separated by " ; ", carried out one after
# the other in one new process. A line that begins with "& " is started, and the next one
# does not wait for it; a line "join" waits for all that were started. Each group has one line
# of output, in the order in which they ended, with five fields between tabs:
#
#	number of the group from 0; how it ended (see finish()); seconds; the answers; stack
#
# An answer is what the system call returned, or minus its errno as in the kernel.
#
# Memory is given by its length, such as 10, and perhaps by a letter to fill it with and a
# place: 10:Q@torn
#	@null	no page is there	@torn	its last byte has no page
#	@kernel	outside user space	@end	it ends at the end of a page, none follows
#
# Constants are those of x86-64's unistd_64.h and include/uapi: no Perl module is used.

use strict;

my %NR = (
	read => 0, write => 1, open => 2, close => 3, poll => 7, lseek => 8, mmap => 9,
	munmap => 11, ioctl => 16, pread => 17, pwrite => 18,
	setitimer => 38,
	setuid => 105, setgid => 106, sched_setscheduler => 144, sched_setaffinity => 203,
	sched_getaffinity => 204, clock_gettime => 228,
	delete_module => 176, finit_module => 313,
);
my %OPEN = (r => 00, w => 01, rw => 02, nonblock => 04000, append => 02000, trunc => 01000);
my $PAGE = 4096;
my $BIG = 1 << 20;
# After SIGKILL a process that waits for something interruptible or killable ends at once.
my $KILL_SECONDS = 10;
my $LIMIT = $ARGV[0];

my $fd = -1;		# of the last open()
my $area;		# address of $BIG bytes of memory, behind which nothing is mapped

sub call {
	my $name = shift;
	my $got = syscall($NR{$name}, @_);
	return $got == -1 ? -$! : $got;
}

sub now {
	my $time = "\0" x 16;
	call('clock_gettime', 1, $time);	# CLOCK_MONOTONIC
	my ($seconds, $nanoseconds) = unpack('q q', $time);
	return $seconds + $nanoseconds / 1e9;
}

# Write $length letters to an address; read(2) from a pipe does it, which Perl itself cannot.
sub fill {
	my ($address, $length, $letter) = @_;
	my $chunk = 65536;	# the capacity of a pipe
	for (my $done = 0; $done < $length; $done += $chunk) {
		my $size = $length - $done < $chunk ? $length - $done : $chunk;
		pipe(my $reader, my $writer) or die "pipe: $!";
		syswrite($writer, $letter x $size);
		call('read', fileno($reader), $address + $done, $size);
	}
}

# Address and length of what "10:Q@torn" means.
sub memory {
	my ($word) = @_;
	my ($length, $letter, $where) = $word =~ /^(\d+)(?::(\w+))?(?:\@(\w+))?$/ or die "memory: $word\n";
	$length += 0;	# syscall() hands over a string's address, and what was matched is a string
	$where = '' if !defined($where);
	return (0, $length) if $where eq 'null';
	return (-(1 << 40), $length) if $where eq 'kernel';
	if (!$area) {
		# PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
		$area = call('mmap', 0, $BIG + $PAGE, 3, 0x22, -1, 0);
		call('munmap', $area + $BIG, $PAGE);
	}
	my $address = $where eq 'torn' ? $area + $BIG + 1 - $length
		    : $where eq 'end' ? $area + $BIG - $length : $area;
	fill($address, $length - ($where eq 'torn' ? 1 : 0), $letter) if defined($letter);
	return ($address, $length);
}

# Go round until a child has ended, which is true, or waits in the module $name.
sub stands {
	my ($child, $name) = @_;
	my ($looks, $before, $end) = (0, '', now() + 5);
	while ($looks < 1000 && now() < $end) {
		return 1 if waitpid($child, 1) == $child;		# WNOHANG
		my $stack = content("/proc/$child/stack");
		$looks = $stack =~ /\[\Q$name\E\]/ && $stack eq $before ? $looks + 1 : 0;
		$before = $stack;
	}
	return 0;
}

my %operation = (
	# open PATH r|w|rw [nonblock]
	open => sub {
		my ($path, @flags) = @_;
		my $flags = 0;
		$flags |= $OPEN{$_} for @flags;
		my $got = call('open', $path, $flags, 0);
		$fd = $got if $got >= 0;
		return $got;
	},
	close => sub { return call('close', $fd) },
	write => sub { return call('write', $fd, memory($_[0])) },
	read => sub { return call('read', $fd, memory($_[0])) },
	pwrite => sub { return call('pwrite', $fd, memory($_[0]), $_[1] + 0) },
	pread => sub { return call('pread', $fd, memory($_[0]), $_[1] + 0) },
	# echo TEXT: one write of these words
	echo => sub { my $text = "@_"; return call('write', $fd, $text, length($text)) },
	# writes COUNT MEMORY: so many writes; how many gave each result, as RESULT*COUNT,...
	writes => sub {
		my ($count, $memory) = @_;
		my @memory = memory($memory);
		my %often;
		$often{call('write', $fd, @memory)}++ for 1 .. $count;
		return join(',', map { "$_*$often{$_}" } sort(keys(%often)));
	},
	# uses PATH COUNT MEMORY: open, write and close so often; how many gave each result
	uses => sub {
		my ($path, $count, $memory) = @_;
		my @memory = memory($memory);
		my %often;
		for (1 .. $count) {
			my $file = call('open', $path, $OPEN{w}, 0);
			$often{$file < 0 ? "open$file" : call('write', $file, @memory)}++;
			call('close', $file) if $file >= 0;
		}
		return join(',', map { "$_*$often{$_}" } sort(keys(%often)));
	},
	# poll MILLISECONDS: the events that there were, of all that could be
	poll => sub {
		my $set = pack('l s s', $fd, 0x3ff, 0);
		my $got = call('poll', $set, 1, $_[0] + 0);
		return $got < 0 ? $got : (unpack('l s s', $set))[2];
	},
	lseek => sub { return call('lseek', $fd, $_[0] + 0, $_[1] + 0) },
	# mmap LENGTH PROTECTION FLAGS OFFSET: and look at its first byte, if there is one
	mmap => sub {
		my $at = call('mmap', 0, map { $_ + 0 } @_[0 .. 2], $fd, $_[3] + 0);
		return $at if $at < 0;
		my $byte = unpack('P1', pack('Q', $at)) if $_[1] & 1;
		return 0;
	},
	# ioctl NUMBER ARGUMENT|MEMORY
	ioctl => sub {
		my ($number, $argument) = @_;
		($argument) = memory($argument) if $argument =~ /\D/;
		return call('ioctl', $fd, $number + 0, $argument + 0);
	},

	# insmod FILE [PARAMETERS]; rmmod NAME
	insmod => sub {
		my ($path, @options) = @_;
		open(my $file, '<', $path) or return -$!;
		my $options = "@options";
		return call('finit_module', fileno($file), $options, 0);
	},
	rmmod => sub {
		my $got;
		# A signal that is there before the kernel has begun is no answer (EINTR).
		until (($got = call('delete_module', $_[0], $OPEN{nonblock})) != -4) { }
		return $got;
	},
	# rmmod_at_last NAME: as soon as nobody uses it
	rmmod_at_last => sub {
		my ($name) = @_;
		my $got;
		until (($got = call('delete_module', $name, $OPEN{nonblock})) != -11) {
			select(undef, undef, undef, 0.001);
		}
		return $got;
	},
	# rmmod_alone NAME PID: while the task PID gets no processor
	rmmod_alone => sub {
		my ($name, $task) = @_;
		my $where = pack('Q', 2);
		if (call('sched_setaffinity', $task + 0, 8, $where) < 0) {	# it is bound to one
			my $got = call('sched_getaffinity', $task + 0, 8, $where);
			return $got if $got < 0;
		}
		my $elsewhere = pack('Q', 3 & ~unpack('Q', $where));
		# What rmmod itself has others do, such as to take a node away, is done.
		for (map { /(\d+)$/ } glob('/proc/[0-9]*')) {
			call('sched_setaffinity', $_ + 0, 8, $elsewhere) if $_ != $task;
		}
		my $child = fork();
		die "fork: $!\n" if !defined($child);
		if (!$child) {
			call('sched_setaffinity', 0, 8, $elsewhere);
			my $got = call('delete_module', $name, $OPEN{nonblock});
			exit(-$got);
		}
		call('sched_setaffinity', 0, 8, $where);
		call('sched_setscheduler', 0, 1, pack('l', 1));		# SCHED_FIFO
		my $back = stands($child, $name);
		call('sched_setscheduler', 0, 0, pack('l', 0));		# SCHED_OTHER
		waitpid($child, 0) if !$back;
		return -($? >> 8);
	},
	# lives COUNT FILE NAME [PATH MEMORY]: load and unload; uses the node between if there is one
	lives => sub {
		my ($count, $file, $name, $path, $memory) = @_;
		my $options = '';
		for my $life (1 .. $count) {
			open(my $ko, '<', $file) or die "$file: $!\n";
			my $got = call('finit_module', fileno($ko), $options, 0);
			return "life$life:insmod:$got" if $got < 0;
			if ($path) {
				my $node = call('open', $path, $OPEN{w}, 0);
				return "life$life:open:$node" if $node < 0;
				call('write', $node, memory($memory));
				call('close', $node);
			}
			$got = call('delete_module', $name, $OPEN{nonblock});
			return "life$life:rmmod:$got" if $got < 0;
			return "life$life:left" if $path && -e $path;
		}
		return $count;
	},
	# alarms: from now on a signal comes every millisecond, whatever this process is doing
	alarms => sub {
		$SIG{ALRM} = sub { };
		return call('setitimer', 0, pack('q4', 0, 1000, 0, 1000), 0);	# ITIMER_REAL
	},
	kill => sub { return kill($_[1], $_[0]) ? 0 : -$! },
	pin => sub { return call('sched_setaffinity', 0, 8, pack('Q', 1 << $_[0])) },
	sleep => sub { select(undef, undef, undef, $_[0]); return 0 },
	exists => sub { return -e $_[0] ? 1 : 0 },
	# nobody: go on without any privilege
	nobody => sub { call('setgid', 65534); return call('setuid', 65534) },
);

my %running;		# number -> [process, handle on which its answers come, when it began]

sub start {
	my ($number, $line) = @_;
	pipe(my $reader, my $writer) or die "pipe: $!";
	my $pid = fork();
	die "fork: $!" if !defined($pid);
	if ($pid) {
		close($writer);
		$running{$number} = [$pid, $reader, now()];
		return;
	}
	# Nothing that waits for the end of the output waits for a process that is stuck.
	open(STDIN, '<', '/dev/null');
	open(STDOUT, '>', '/dev/null');
	open(STDERR, '>', '/dev/null');
	close($reader);
	for (split(/ ; /, $line)) {
		my ($name, @words) = split(' ', $_);
		my $work = $operation{$name};
		my $got = $work ? eval { $work->(@words) } : "nothing-named-$name";
		$got = "died:$@" =~ s/\s+/_/gr if $@;
		syswrite($writer, "$got ");
	}
	# An alarm would end Perl once it has taken its handlers down.
	call('setitimer', 0, pack('q4', 0, 0, 0, 0), 0);
	exit(0);
}

sub content {
	open(my $file, '<', $_[0]) or return '';
	local $/;
	return readline($file) // '';
}

# Wait for a group's end. It "ended"; a signal killed it ("signal N"); it was still at work after
# the limit and SIGKILL ended it ("blocked"); or nothing did ("stuck").
sub finish {
	my ($number) = @_;
	my ($pid, $reader, $began) = @{delete($running{$number})};
	my ($said, $how, $stack) = ('', 'ended', '');
	my $end = now() + $LIMIT;
	while (1) {
		my $ready = '';
		vec($ready, fileno($reader), 1) = 1;
		my $left = $end - now();
		my $got = select($ready, undef, undef, $left > 0 ? $left : 0);
		last if $got > 0 && !sysread($reader, $said, 65536, length($said));
		next if $got > 0 || now() < $end;
		if ($how eq 'blocked') {
			$how = 'stuck';
			last;
		}
		$how = 'blocked';
		my ($state) = content("/proc/$pid/stat") =~ /.*\) (\w)/;
		$stack = "$state\n" . content("/proc/$pid/stack");
		kill('KILL', $pid);
		$end = now() + $KILL_SECONDS;
	}
	my $took = now() - $began;
	if ($how ne 'stuck') {
		waitpid($pid, 0);
		$how = 'signal ' . ($? & 127) if $how eq 'ended' && $? & 127;
	}
	$stack =~ s/\n/%/g;
	$said =~ s/ $//;
	printf("%d\t%s\t%.3f\t%s\t%s\n", $number, $how, $took, $said, $stack);
}

$| = 1;
my $number = 0;
while (defined(my $line = readline(STDIN))) {
	chomp($line);
	if ($line eq 'join') {
		finish($_) for sort { $a <=> $b } keys(%running);
		next;
	}
	my $together = $line =~ s/^& //;
	start($number, $line);
	finish($number) if !$together;
	$number++;
}
finish($_) for sort { $a <=> $b } keys(%running);
