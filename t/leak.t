# Fifty reloads and twenty deaths of the engine leave no descriptor and no
# memory behind in master, holder, engine and workers.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

use constant {
    RELOADS => 50,
    KILLS => 20,
    WARM_UP => 10, # reloads after which nothing grows any more
    # Private memory may differ by this much, in kB: 4 a reload.
    TOLERANCE => 200,
};

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my ($alice, $bob) = map { $t->node($_) } qw(alice bob);
$t->netmap('web.json', self => $web, peers => [$alice, $bob]);

# "delay=0": the next engine starts at once, however often it died.
$t->write_config(<<'EOF');
worker_processes 1;
tailnet_engine binary=%%TAILNETD%% timing=delay=0;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        tailnet_listen 81 reuseport;
        keepalive_timeout 0;
        tailnet_acl accept *;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
$t->run;
my $wg = $t->start_wgpeer($alice, peers => [$web]);
$t->expect_alert(qr/engine \d+ was killed by signal 9/);

sub asks ($what) {
    $wg->remove_peer($web);
    $wg->add_peer($web);
    is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, $what);
}

# The processes, when old workers are gone and the engine has said everything.
sub census () {
    my %pid = (
        master => $t->master,
        worker => ($t->workers)[0],
        holder => $t->holder,
        engine => $t->engine,
    );
    return {
        fds => { map { $_ => $t->fd_kinds($pid{$_}) } keys %pid },
        kb => { map { $_ => $t->private_dirty($pid{$_}) } keys %pid },
    };
}

# A master closes its end to a worker a moment after the worker is gone.
sub settled () {
    my ($before, $now) = (census());
    Test::Tailnet::Process::until_true(5, sub {
        ($before, $now) = ($now // $before, undef);
        select undef, undef, undef, 0.3;
        $now = census();
        return eq_hash($now->{fds}, $before->{fds});
    });
    return $now;
}

# A sanitizer keeps memory back that has been freed.
sub sanitized ($pid) {
    return Test::Tailnet::Process::slurp("/proc/$pid/maps") =~ /lib[alu]b?san/;
}

sub compare ($before, $what) {
    my $now = settled();
    is_deeply($now->{fds}, $before->{fds}, "$what: descriptors are the same");
  SKIP: {
        skip 'sanitizers keep memory', 4 if sanitized($t->holder);
        for my $name (sort keys $now->{kb}->%*) {
            my ($old, $new) = ($before->{kb}{$name}, $now->{kb}{$name});
            cmp_ok($new - $old, '<=', TOLERANCE, "$what: memory of the $name");
            note("$name: $old kB, then $new kB");
        }
    }
}

sub reloads ($n) {
    my $done = grep { $t->reload(drain => 10) } 1 .. $n;
    is($done, $n, "$n reloads");
}

reloads(WARM_UP);
asks('nginx serves');
my $before = settled();
reloads(RELOADS);
asks('nginx serves after the reloads');
compare($before, 'reloads');

# The first engines have settled the holder too.
sub kills ($n) {
    my $done = grep {
        my $mark = $t->log_mark;
        $t->kill_engine && $t->wait_for_log(qr/netmap applied: 2 peers/, 5,
            from => $mark)
    } 1 .. $n;
    is($done, $n, "$n deaths of the engine");
}

kills(3);
asks('nginx serves');
$before = settled();
kills(KILLS);
asks('nginx serves after the deaths');
compare($before, 'deaths');

$t->done_testing;
