# Many new connections to a node, more than a worker has sockets in stock: those
# without one wait, and neither they nor the worker are harmed by clients that
# leave, by a tailnetd that is slow, nor by one that is gone.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);
use Time::HiRes qw(time);

my $t = Test::Tailnet->new(also => ['reqloop']);

my $web = $t->nginx_node('web');
my $alpha = $t->node('alpha');
$t->netmap('web.json', self => $web, peers => [$alpha]);

$t->write_config(<<'EOF');
worker_processes 2;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { worker_connections 4096; }
http {
    keepalive_requests 1000000;
    proxy_http_version 1.0; # a connection for each request
    upstream app { tailnet_server alpha:8000 max_fails=0; }
    upstream spare {
        tailnet_server alpha:8000 max_fails=0;
        server 127.0.0.1:8100 backup;
    }
    server {
        listen 8080 reuseport;
        location /app {
            proxy_pass http://app;
            proxy_connect_timeout 10s;
        }
        location /spare {
            proxy_pass http://spare;
            proxy_connect_timeout 300ms;
        }
        location /patient {
            proxy_pass http://spare;
            proxy_connect_timeout 10s;
        }
        location /local { return 200 "local\n"; }
    }
}
EOF
$t->run;
$t->start_wgpeer($alpha, peers => [$web]);
start_app($t, 'alpha');
start_app($t, 'host', name => 'lan', port => 8100);

my $lan = 'http://127.0.0.1:8080';
sub asks ($path, @more) { $t->http_get('host', "$lan/$path", @more) }

# settled(): true when no request has been finished for a while.
sub settled () {
    my ($size, $since) = (-1, 0);

    return Test::Tailnet::Process::until_true(10, sub {
        my $now = $t->log_mark('access.log');
        ($size, $since) = ($now, time) if $now != $size;
        return time - $since > 0.2;
    });
}

# connections(): of clients with nginx.
sub connections () {
    my $r = $t->run_in('host', qw(ss -Htn state established sport = :8080));
    return scalar(my @lines = split /\n/, $r->{stdout});
}

is(asks('app')->status, 200, 'a request');
my %worker = map { $_ => 1 } $t->workers;
sub fds () { [map { scalar keys $t->fds($_)->%* } sort keys %worker] }

my $loop = $t->start_reqloop('host', url => "$lan/app", parallel => 48,
    count => 1500);
my $sum = $loop->wait(60);
is($sum->{ok}, 1500, '1500 requests, 48 at a time');
is($sum->{failures}, 0, 'none was lost') or diag(explain $sum->{reasons});

# tailnetd is slow: the stock is used up and the rest waits.
my $mark = $t->log_mark;
my $holder = $t->holder;
kill 'STOP', $holder;
$loop = $t->start_reqloop('host', url => "$lan/app", parallel => 48,
    timeout => 15_000);
ok(settled(), 'the stock is used up');
my $start = time;
is(asks('local')->status, 200, 'the workers work') for 1 .. 4;
cmp_ok(time - $start, '<', 1, 'without a delay');
like(asks('spare')->body, qr/^lan /, 'who waits too long gets the backup');
like($t->log_since($mark), qr/upstream timed out.*while connecting/,
    'the log says so');
my @gone = map { asks('app', timeout => 0.2) } 1 .. 4;
is_deeply([map { $_->status } @gone], [(0) x 4], 'some clients leave');
kill 'CONT', $holder;
like(asks('app')->body, qr/^alpha /, 'it goes on');
ok($t->requests(100), 'for all of them');
$sum = $loop->stop;
is($sum->{failures}, 0, 'who waited was served')
    or diag(explain $sum->{reasons});
cmp_ok($sum->{max_ms}, '>', 500, 'after a wait');

# tailnetd ends while requests wait.
$holder = $t->holder;
kill 'STOP', $holder;
$loop = $t->start_reqloop('host', url => "$lan/patient", parallel => 48,
    timeout => 15_000);
ok(settled(), 'the stock is used up again');
my @posts = map { $t->fetch('host', "$lan/patient", data => 'x' x 100) }
    1 .. 4;
Test::Tailnet::Process::until_true(3, sub { connections() >= 52 });
$mark = $t->log_mark;
$start = time;
$t->kill_holder;
my @bodies = map { $_->response->body } @posts;
is(grep(/^lan /, @bodies), 4, 'who waits when tailnetd ends gets the backup');
cmp_ok(time - $start, '<', 3, 'at once');
$sum = $loop->stop;
is($sum->{failures}, 0, 'all of them') or diag(explain $sum->{reasons});
my $log = $t->log_since($mark);
like($log, qr/\[error\].*no socket to connect to 100\.64\.0\.2:8000/,
    'the log says why');
unlike($log, qr/\[crit\]/, 'and has no riddles');

# The stock is empty now and stays so.
$start = time;
is(asks('app')->status, 502, 'without a backup: 502') for 1 .. 4;
like(asks('patient')->body, qr/^lan /, 'with one: the backup') for 1 .. 4;
cmp_ok(time - $start, '<', 3, 'at once');
is_deeply({ map { $_ => 1 } $t->workers }, \%worker,
    'the workers are the same');
my $fds = fds();
is(asks('app')->status, 502, 'more of them') for 1 .. 10;
is_deeply(fds(), $fds, 'they leave no descriptors behind');

ok($t->reload(drain => 10), 'a reload');
ok(Test::Tailnet::Process::until_true(5,
    sub { asks('app')->status == 200 }), 'brings a tailnetd');

$t->done_testing;
