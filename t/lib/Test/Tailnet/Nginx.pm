package Test::Tailnet::Nginx;

# nginx of a test: configuration, life, logs.  It runs on "host".

use v5.36;

use Test::Tailnet::Process;

# write_config(text, options): nginx.conf (or file => NAME).  The globals
# (load_module, user, pid, error_log...) are put before the text's first line,
# so that line numbers are those of the text; what "http {" needs to stay
# inside the test's directory follows it.  Replaced in the text: %%TESTDIR%%,
# %%PORT_n%%, %%TAILNETD%%, %%TAILNETCTL%%, %%BUILD%%, %%HOST%% (nginx's
# underlay address).  Options: load (names of nginx modules, such as 'stream',
# loaded when they are dynamic), log_level ('info'), daemon ('on').
sub write_config ($self, $text, %o) {
    my $dir = $self->{dir};
    my @globals = map { "load_module $_;" } $self->dynamic_modules($o{load});

    # A new binary starts with what these name, no more.
    push @globals, map { "env $_;" } grep { /^(?:A|L|UB)SAN_OPTIONS\z/ }
        sort keys %ENV;
    push @globals, 'load_module ' . $self->binary('module') . ';'
        if $self->needs('module');
    push @globals, 'user ' . worker_user() . ';',
        'daemon ' . ($o{daemon} // 'on') . ';', "pid $dir/nginx.pid;",
        "error_log $dir/error.log " . ($o{log_level} // 'info') . ';';
    $text = $self->expand($text);
    my $http = join ' ', $self->http_globals;
    $text =~ s/^(http\s*\{)/$1 $http/m;
    return $self->write_file($o{file} // 'nginx.conf', "@globals $text");
}

sub expand ($self, $text) {
    my %value = (
        TESTDIR => $self->{dir},
        BUILD => $self->{build},
        HOST => $self->underlay('host'),
    );

    $text =~ s/%%PORT_(\d+)%%/$1/g;
    $text =~ s/%%(TAILNETD|TAILNETCTL)%%/$self->binary(lc $1)/ge;
    $text =~ s/%%([A-Z]+)%%/$value{$1} \/\/ die "%%$1%% is unknown"/ge;
    return $text;
}

sub worker_user () {
    my ($user) = grep { getpwnam $_ } qw(www-data nobody);
    my $gid = (getpwnam $user)[3];
    return "$user " . getgrgid $gid;
}

sub http_globals ($self) {
    my $dir = $self->{dir};
    my $args = $self->nginx_args;
    my @paths = map { "${_}_temp_path $dir/${_}_temp;" } 'client_body',
        grep { $args !~ /--without-http_${_}_module/ }
        qw(proxy fastcgi uwsgi scgi);

    return ("access_log $dir/access.log;", @paths);
}

# nginx_args(): what "nginx -V" says.
sub nginx_args ($self) {
    return $self->{nginx_args}
        //= Test::Tailnet::Net::output($self->binary('nginx'), '-V');
}

sub nginx_version ($self) {
    return $self->nginx_args =~ m{nginx/([\d.]+)} ? $1 : die 'no version';
}

# has(feature): built with --with-FEATURE, dynamic or not.
sub has ($self, $feature) {
    return $self->nginx_args =~ /--with-\Q$feature\E(?=[=\s]|\z)/;
}

sub dynamic_modules ($self, $names) {
    my ($path) = $self->nginx_args =~ /--modules-path=(\S+)/;
    return map { "$path/ngx_${_}_module.so" }
        grep { $self->nginx_args =~ /--with-$_=dynamic/ } ($names // [])->@*;
}

# test_config(text, options): "nginx -t" on a text as write_config takes it.
# Returns what run_command does: { ok, exit, output }.
sub test_config ($self, $text, %o) {
    my $file = $self->write_config($text, file => 'test.conf', %o);
    return $self->nginx_command('-t', '-c', $file, '-e',
        "$self->{dir}/test.log");
}

# nginx_command(args): a run that ends by itself; after a mistake in the
# configuration nginx does not give back its memory.
sub nginx_command ($self, @args) {
    my %env = ($self->nginx_env->%*,
        ASAN_OPTIONS => "$ENV{ASAN_OPTIONS}:detect_leaks=0");

    return $self->run_command([$self->prefix('host'), $self->binary('nginx'),
        '-p', "$self->{dir}/", @args], env => \%env);
}

# nginx_env(): TEST_NGINX_PRELOAD carries a sanitizer's runtime into an nginx
# that was built without.
sub nginx_env ($self) {
    my $preload = $ENV{TEST_NGINX_PRELOAD};
    return {
        ($preload ? (LD_PRELOAD => $preload) : ()),
        ($self->{env} // {})->%*,
    };
}

# run_as(user): nginx will be started by somebody without any right; the test's
# directory and what is in it become theirs.
sub run_as ($self, $user) {
    my (undef, undef, $uid, $gid) = getpwnam $user or die "no user $user";

    $self->{as} = ['setpriv', "--reuid=$uid", "--regid=$gid", '--clear-groups',
        '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all', '--'];
    chown $uid, $gid, $self->{dir}, glob "$self->{dir}/*"
        or die "$self->{dir}: $!";
}

# run(env): start nginx; dies with what it said when it does not come up.
sub run ($self, %env) {
    my $result = $self->try_run(%env);

    die "nginx did not start (exit $result->{exit}): $result->{output}\n"
        if !$self->{master};
    return $self;
}

# try_run(env): the same, but returns { ok, exit, output }.
sub try_run ($self, %env) {
    die 'nginx is running already' if $self->{master};
    unlink "$self->{dir}/nginx.pid";
    $self->{env} = \%env;
    my @cmd = (($self->{as} // [])->@*, $self->binary('nginx'), '-p',
        "$self->{dir}/", '-c',
        "$self->{dir}/nginx.conf", '-e', "$self->{dir}/error.log");
    my $name = 'nginx' . ++$self->{starts};
    my $proc = $self->spawn('host', \@cmd, name => $name,
        env => $self->nginx_env, stdin => '/dev/null');
    Test::Tailnet::Process::until_true(15, sub {
        $self->{master} = $self->pid_of('nginx.pid');
        return $self->{master} && $self->workers
            || ($proc->exit_code // 0) != 0;
    });
    return {
        ok => !!$self->{master},
        exit => $proc->exit_code,
        output => $proc->stdout . $proc->stderr,
    };
}

sub pid_of ($self, $file) {
    my ($pid) =
        Test::Tailnet::Process::slurp("$self->{dir}/$file") =~ /^(\d+)$/m;
    return $pid && Test::Tailnet::Process::running($pid) ? $pid : undef;
}

sub master ($self) { $self->{master} }

# workers(all => 1): ids of the master's workers; with all, also of those that
# are shutting down.
sub workers ($self, %o) {
    my $title = qr/^nginx: worker process/;

    return () if !$self->{master};
    $title = qr/$title\z/ if !$o{all};
    return grep {
        Test::Tailnet::Process::parent($_) == $self->{master}
            && Test::Tailnet::Process::title($_) =~ $title
    } Test::Tailnet::Process::all_pids();
}

# signal_nginx(name): to the master.
sub signal_nginx ($self, $signal) {
    kill $signal, $self->{master} // die 'nginx is not running';
}

# reload(drain => SECONDS): true when new workers run; false when nginx refused
# the configuration or nothing happened.  With drain, the old workers have to
# be gone by then as well.
sub reload ($self, %o) {
    my %old = map { $_ => 1 } $self->workers(all => 1);
    my $mark = $self->log_mark;
    my $new = 0;

    $self->signal_nginx('HUP');
    Test::Tailnet::Process::until_true($o{timeout} // 15, sub {
        $new = grep { !$old{$_} } $self->workers;
        return $new || $self->log_since($mark) =~ /\[emerg\]/;
    });
    return 0 if !$new;
    return $self->wait_gone($o{drain}, keys %old) if defined $o{drain};
    return 1;
}

# wait_gone(seconds, pids): true when all those processes have ended.
sub wait_gone ($self, $seconds, @pids) {
    return Test::Tailnet::Process::until_true($seconds, sub {
        !grep { Test::Tailnet::Process::running($_) } @pids;
    });
}

# upgrade_start(): start a new binary beside the old (USR2); true when it has
# workers.  Then either upgrade_finish() or upgrade_abort() ends one of them.
sub upgrade_start ($self) {
    my $old = $self->{master};

    die 'an upgrade is under way already' if $self->{old_master};
    $self->signal_nginx('USR2');
    Test::Tailnet::Process::until_true(15, sub {
        my $new = $self->pid_of('nginx.pid');
        return 0 if !$new || $new == $old;
        $self->@{qw(master old_master)} = ($new, $old);
        return scalar $self->workers;
    });
    return !!$self->{old_master};
}

sub upgrade_finish ($self, $seconds = 15) {
    my $old = delete $self->{old_master} // die 'no upgrade is under way';
    kill 'QUIT', $old;
    return $self->wait_gone($seconds, $old);
}

sub upgrade_abort ($self, $seconds = 15) {
    my $new = $self->{master};

    $self->{master} = delete $self->{old_master}
        // die 'no upgrade is under way';
    kill 'QUIT', $new;
    return $self->wait_gone($seconds, $new)
        && Test::Tailnet::Process::until_true(5,
            sub { ($self->pid_of('nginx.pid') // 0) == $self->{master} });
}

sub upgrade ($self) { $self->upgrade_start && $self->upgrade_finish }

# stop(signal, seconds): end nginx (QUIT lets requests finish); true when it
# is gone in time.  One that is not gets killed.
sub stop ($self, $signal = 'QUIT', $seconds = 15) {
    my @pids = grep { defined } delete $self->@{qw(master old_master)};
    my @all = (@pids, map { $self->children($_) } @pids);

    kill $signal, @pids;
    return 1 if $self->wait_gone($seconds, @all);
    kill 'KILL', grep { Test::Tailnet::Process::running($_) } @all;
    $self->wait_gone(5, @all);
    return 0;
}

sub children ($self, $pid) {
    return grep { Test::Tailnet::Process::parent($_) == $pid }
        Test::Tailnet::Process::all_pids();
}

# read_log(file): a file of the test's directory, default error.log.
sub read_log ($self, $file = 'error.log') {
    return Test::Tailnet::Process::slurp("$self->{dir}/$file");
}

# log_mark(file): where the log ends now; log_since(mark, file): what came
# after.
sub log_mark ($self, $file = 'error.log') { -s "$self->{dir}/$file" || 0 }

sub log_since ($self, $mark, $file = 'error.log') {
    open my $fh, '<:raw', "$self->{dir}/$file" or return '';
    seek $fh, $mark, 0;
    local $/;
    return scalar <$fh> // '';
}

# wait_for_log(regex, seconds, file => NAME, from => MARK): true when a line
# matches in time.
sub wait_for_log ($self, $regex, $seconds = 5, %o) {
    return Test::Tailnet::Process::until_true($seconds, sub {
        $self->log_since($o{from} // 0, $o{file} // 'error.log') =~ $regex;
    });
}

1;
