package Test::Tailnet;

# Integration tests of nginx-tailnet: nginx on a host of its own network, and
# what it meets there.
#
#   my $t = Test::Tailnet->new;
#   my $web = $t->nginx_node('web');
#   my $alice = $t->node('alice');
#   $t->netmap('web.json', self => $web, peers => [$alice]);
#   $t->write_config(<<'EOF');
#   ...
#   EOF
#   $t->run;
#   $t->start_wgpeer($alice, peers => [$web]);
#   is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'allowed');
#   $t->done_testing;
#
# Environment: TAILNET_BUILD (build/ of the tree), TEST_NGINX_BUILD (the build
# whose nginx and module it is, the same), TEST_NGINX_BINARY (nginx-bin of that,
# or the machine's nginx), TEST_NGINX_PRELOAD, TAILNET_KEEP (leave the test's
# directory behind), CI or TAILNET_NO_SKIP (what would skip a test fails it).

use v5.36;

use Cwd ();
use File::Basename qw(dirname);
use File::Path qw(remove_tree);
use File::Temp ();
use Test::More ();

use Test::Tailnet::Control;
use Test::Tailnet::Daemon;
use Test::Tailnet::HTTP;
use Test::Tailnet::Net;
use Test::Tailnet::Netmap;
use Test::Tailnet::Nginx;
use Test::Tailnet::Peers;
use Test::Tailnet::Process;
use Test::Tailnet::Tailscaled;

our @ISA = map { "Test::Tailnet::$_" } qw(Control Daemon Net Netmap Nginx Peers
    HTTP Tailscaled);

# Checks of finish() which count as tests.
use constant HYGIENE => 4;

# Processes of a tailnetd get this long to follow their nginx.
use constant FOLLOW => 5;

my %binaries = (
    nginx => $ENV{TEST_NGINX_BINARY},
    module => 'ngx_tailnet_module.so',
    tailnetd => 'tailnetd',
    tailnetctl => 'tailnetctl',
    wgpeer => 'tests/wgpeer',
    control => 'tests/control',
    tailscaled => 'tests/tailscaled',
    tailscale => 'tests/tailscale',
    nginx_auth => 'tests/nginx-auth',
    impair => 'tests/impair',
    reqloop => 'tests/reqloop',
    fake_tailnetd => 'tests/fake_tailnetd',
);
my $current;

# new(needs, also): prepare a test, or skip it with the reason.  needs lists
# the programs it uses, default all but impair and reqloop, which also => [...]
# adds; without 'module', nginx runs without the project's module.
sub new ($class, %o) {
    my @needs = $o{needs}
        ? $o{needs}->@* : qw(nginx module tailnetd tailnetctl wgpeer);
    push @needs, ($o{also} // [])->@*;
    my $build = $ENV{TAILNET_BUILD} // dirname(__FILE__) . '/../../../build';
    my $self = bless {
        prefix => "tt$$",
        build => Cwd::abs_path($build) // $build,
        nginx_build => Cwd::abs_path($ENV{TEST_NGINX_BUILD} // $build),
        needs => { map { $_ => 1 } @needs },
        namespaces => [],
        processes => [],
        expected => [],
        users => {},
        owner => $$,
    }, $class;

    die 'one Test::Tailnet per test' if $current;
    my $missing = $self->missing(@needs);
    skip($missing) if $missing;
    Test::Tailnet::Net::remove_stale();
    $self->{dir} = File::Temp::tempdir('tailnet-test-XXXXXXXX',
        TMPDIR => 1);
    chmod 0755, $self->{dir} or die "$self->{dir}: $!";
    # Marks all that is started from here; see leftovers().
    $ENV{TAILNET_TEST} = $self->{prefix};
    set_sanitizer_options($self->{dir});
    $SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
    $SIG{PIPE} = 'IGNORE';
    return $current = $self;
}

sub skip ($reason) {
    die "not skipped in CI: $reason\n"
        if $ENV{CI} || $ENV{TAILNET_NO_SKIP};
    Test::More::plan(skip_all => $reason);
}

# missing(needs): what keeps the test from running here, or undef.
sub missing ($self, @needs) {
    return 'needs root' if $> != 0;
    return 'needs /dev/net/tun' if !-c '/dev/net/tun';
    for my $program (qw(ip curl openssl),
        (grep { $_ eq 'tailscaled' } @needs) ? 'nft' : ()) {
        return "needs $program"
            if !grep { -x "$_/$program" } split /:/, $ENV{PATH};
    }
    for my $need (@needs) {
        my $file = $self->binary($need);
        return "needs $file" if !-e $file;
    }
    my $probe = $self->ns('probe');
    eval { Test::Tailnet::Net::ip('netns', 'add', $probe); 1 }
        or return "needs network namespaces: $@" =~ s/\s+/ /gr;
    Test::Tailnet::Net::ip('netns', 'del', $probe);
    return undef;
}

sub set_sanitizer_options ($dir) {
    # The engine is somebody else, and has to be able to write there.
    mkdir "$dir/reports" or die "$dir/reports: $!";
    chmod 01777, "$dir/reports" or die "$dir/reports: $!";
    my $known = "$dir/leaks.supp";

    # nginx leaves memory to the end of its processes: leaks are looked for in
    # tailnetd and its tools; t/leak.t watches nginx's own size.
    open my $fh, '>', $known or die "$known: $!";
    print $fh "leak:src/core/nginx.c\n";
    close $fh or die "$known: $!";
    for my $name (qw(ASAN UBSAN LSAN)) {
        $ENV{"${name}_OPTIONS"} = join ':',
            grep { defined } $ENV{"${name}_OPTIONS"},
            "log_path=$dir/reports/sanitizer",
            # Each dynamic module of nginx has its own ngx_modules.
            $name eq 'ASAN' ? 'detect_odr_violation=0' : (),
            $name eq 'LSAN' ? "suppressions=$known:print_suppressions=0" : ();
    }
}

sub needs ($self, $what) { $self->{needs}{$what} }
sub testdir ($self) { $self->{dir} }

# binary(name): its path.
sub binary ($self, $name) {
    # An nginx that was built with the module, else the machine's.
    if ($name eq 'nginx' && !$binaries{nginx}) {
        my $built = "$self->{nginx_build}/nginx-bin";
        return -x $built ? $built : '/usr/sbin/nginx';
    }
    my $file = $binaries{$name} // die "no program \"$name\"";
    my $build = $self->{$name eq 'module' ? 'nginx_build' : 'build'};
    return $file =~ m{^/} ? $file : "$build/$file";
}

# use_binary(name => path, ...): other programs than those of the build.
sub use_binary ($self, %path) { $binaries{$_} = $path{$_} for keys %path }

# write_file(name, content, mode): in the test's directory; returns the path.
sub write_file ($self, $name, $content, $mode = 0644) {
    my $path = "$self->{dir}/$name";

    open my $fh, '>:raw', $path or die "$path: $!";
    chmod $mode, $fh or die "$path: $!";
    print $fh $content;
    close $fh or die "$path: $!";
    return $path;
}

# prefix(who): the words before a command that is to run inside the network of
# a host, or of a started tailnetd client.
sub prefix ($self, $who) {
    return $self->{inside}{$who}->@* if $self->{inside}{$who};
    $self->leg($who) if $who eq 'host';
    die "no host \"$who\"" if !$self->{legs}{$who};
    return ('ip', 'netns', 'exec', $self->ns($who));
}

# spawn(who, command, name, options): start a program there, as a
# Test::Tailnet::Process; the test's end is its end.
sub spawn ($self, $who, $cmd, %o) {
    my $proc = Test::Tailnet::Process->new(
        name => 'spawn' . ++$self->{spawned},
        %o,
        cmd => [$self->prefix($who), @$cmd],
        dir => $self->{dir},
    );

    push $self->{processes}->@*, $proc;
    return $proc;
}

# run_in(who, command...): run a program there to its end, 30 s at most.
# Returns { ok, exit, output, stdout, stderr }.
sub run_in ($self, $who, @cmd) {
    return $self->run_command([$self->prefix($who), @cmd]);
}

# ctl(args): tailnetctl at the socket that nginx.pid's name leads to; as run_in.
sub ctl ($self, @args) {
    return $self->run_in('host', $self->binary('tailnetctl'), '--socket',
        "$self->{dir}/nginx-tailnet/admin.sock", @args);
}

sub run_command ($self, $cmd, %o) {
    my $proc = Test::Tailnet::Process->new(
        name => 'run' . ++$self->{spawned},
        cmd => $cmd,
        dir => $self->{dir},
        env => $o{env},
        stdin => '/dev/null',
    );
    my $exit = $proc->wait(30) // $proc->stop('KILL');

    return {
        ok => $exit == 0,
        exit => $exit,
        stdout => $proc->stdout,
        stderr => $proc->stderr,
        output => $proc->stdout . $proc->stderr,
    };
}

# expect_alert(regex): lines of [alert] or [emerg] that belong to the test.
sub expect_alert ($self, $regex) { push $self->{expected}->@*, $regex }

# plan(n): n tests of the caller's; the checks of the end are added.
sub plan ($self, $n) {
    Test::More::plan(tests => $n + HYGIENE);
    return $self;
}

# done_testing(): end everything, check what is left, and close the count.
sub done_testing ($self) {
    $self->finish(sub ($problems, $name) {
        Test::More::is(join("\n", @$problems), '', $name);
    });
    Test::More::done_testing();
}

# finish(report): end all processes, remove what the test has made and call
# ${report} with a list of problems and the name of each check.
sub finish ($self, $report) {
    $current = undef;
    $report->([$self->end_processes], 'processes ended when told');
    $report->([$self->leftovers], 'nothing is left behind');
    $report->([$self->grep_logs(
        qr/AddressSanitizer|LeakSanitizer|runtime error:/)],
        'no sanitizer reports');
    $report->([$self->unexpected_alerts], 'no alerts');
    if ($ENV{TAILNET_KEEP}) {
        Test::More::diag("kept: $self->{dir}");
    } else {
        $self->show_logs
            if $self->{died} || !Test::More->builder->is_passing;
        remove_tree($self->{dir});
    }
}

# end_processes(): clients first, so that nginx has nothing to wait for.
sub end_processes ($self) {
    my $gone = $self->{master}
        && !Test::Tailnet::Process::running($self->{master});
    my @problems = $gone ? "nginx ended by itself" : ();

    for my $proc (reverse $self->{processes}->@*) {
        my $by_itself = !$proc->alive;
        my $exit = $proc->stop;
        push @problems, sprintf '%s: %s: %s', $proc->name,
            $by_itself ? "ended by signal " . -$exit : 'had to be killed',
            $proc->stderr
            if $by_itself ? crashed($exit) : $exit == -9;
    }
    push @problems, 'nginx had to be killed' if !$self->stop('TERM');
    return @problems;
}

# crashed(exit): by a signal that nobody sends to end a program.
sub crashed ($exit) { grep { $exit == -$_ } 4, 6, 7, 8, 11, 31 }

# leftovers(): processes that should have ended with those that were told to.
# A process is the test's by the mark in its environment, its working
# directory or its network namespace; what is left is reported and killed.
sub leftovers ($self) {
    my @pids;

    Test::Tailnet::Process::until_true(FOLLOW,
        sub { !(@pids = $self->own_pids) });
    my @problems = map { "$_: " . Test::Tailnet::Process::title($_) } @pids;
    kill 'KILL', @pids;
    $self->wait_gone(5, @pids);
    return (@problems, $self->remove_namespaces);
}

sub own_pids ($self) {
    my %inode = map { $_ => 1 } $self->inodes;
    my $mark = qr/(?:^|\0)TAILNET_TEST=\Q$self->{prefix}\E(?:\0|\z)/;

    return grep {
        my $cwd = readlink "/proc/$_/cwd";
        my $net = (stat "/proc/$_/ns/net")[1];
        $_ != $$ && Test::Tailnet::Process::running($_)
            && (defined $cwd && index($cwd, $self->{dir}) == 0
                || defined $net && $inode{$net}
                || Test::Tailnet::Process::slurp("/proc/$_/environ")
                =~ $mark);
    } Test::Tailnet::Process::all_pids();
}

# grep_logs(regex): matching lines of all output and logs of the test.
sub grep_logs ($self, $regex) {
    my @lines;

    for my $path (sort glob "$self->{dir}/{*.log,*.stderr,reports/sanitizer*}") {
        open my $fh, '<:raw', $path or next;
        while (my $line = <$fh>) {
            next if $line !~ $regex;
            push @lines, ($path =~ s{.*/}{}r) . ": $line" =~ s/\s+\z//r;
        }
    }
    return @lines;
}

sub unexpected_alerts ($self) {
    return grep {
        my $line = $_;
        $line !~ /^(?:test\.log|run\d+\.stderr):/
            && !grep { $line =~ $_ } $self->{expected}->@*;
    } $self->grep_logs(qr/\[(?:alert|emerg)\]/);
}

sub show_logs ($self) {
    for my $path (sort glob "$self->{dir}/{*.log,*.stderr,reports/sanitizer*}") {
        next if $path =~ m{/(?:run|curl)\d+\.|/access\.log};
        my @lines = split /\n/, Test::Tailnet::Process::slurp($path);
        next if !@lines;
        splice @lines, 0, -30;
        Test::More::diag("--- $path\n" . join "\n", @lines);
    }
}

END {
    if ($current && $current->{owner} == $$) {
        my $exit = $?;
        my $planned = Test::More->builder->has_plan;

        $current->{died} = $exit;
        $current->finish(sub ($problems, $name) {
            if ($planned && !$exit) {
                Test::More::is(join("\n", @$problems), '', $name);
            } elsif (@$problems) {
                Test::More::diag(join "\n", "not ok: $name", @$problems);
                $exit ||= 1;
            }
        });
        $? = $exit;
    }
}

1;
