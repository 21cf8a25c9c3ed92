# tailnet_limit_req: rate, burst, delay, for whom, what is counted and what is
# not, reload, a zone that is too small.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my @nodes = (
    $t->node('laptop', user => 'alice@example.com'),
    $t->node('phone', user => 'alice@example.com'),
    $t->node('bob', user => 'bob@example.com'),
    $t->node('ci', tags => ['tag:ci']),
    $t->node('ci2', tags => ['tag:ci']),
);
my $router = $t->node('router', tags => ['tag:router'],
    routes => ['192.168.7.0/24']);

$t->netmap('web.json', self => $web, peers => [@nodes, $router]);
mkdir $t->testdir . '/html';
$t->write_file("html/$_", "$_\n") for qw(index.html sub.html page.html);
$t->write_file('passwd', "carol:{PLAIN}secret\n");

# Rates are slow, one in a minute, where a test must not depend on time.
my $config = <<'EOF';
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
worker_processes 2;
events { }
http {
    root %%TESTDIR%%/html;
    set_real_ip_from 0.0.0.0/0;
    server {
        tailnet_listen 80;
        tailnet_listen 82 http2;
        listen 80;

        location /free/ { alias %%TESTDIR%%/html/; }
        location /rate/ {
            tailnet_limit_req rate=1r/m;
            alias %%TESTDIR%%/html/;
        }
        location /again/ {
            tailnet_limit_req rate=1r/m;
            alias %%TESTDIR%%/html/;
        }
        location /burst/ {
            tailnet_limit_req rate=1r/m burst=4 nodelay;
            alias %%TESTDIR%%/html/;
        }
        location /delay/ {
            tailnet_limit_req rate=2r/s burst=3;
            alias %%TESTDIR%%/html/;
        }
        location /for/ {
            tailnet_limit_req rate=1r/m burst=1 nodelay for=tag:ci;
            tailnet_limit_req rate=1r/m for=bob@example.com;
            tailnet_limit_req rate=1r/m burst=2 nodelay;
            alias %%TESTDIR%%/html/;
        }
        location /several/ {
            tailnet_limit_req rate=1r/m burst=5 nodelay;
            tailnet_limit_req rate=1r/m burst=1 nodelay;
            alias %%TESTDIR%%/html/;
        }
        location /only/ {
            tailnet_limit_req rate=1r/m for=tag:ci;
            alias %%TESTDIR%%/html/;
        }
        location /acl/ {
            tailnet_acl reject bob;
            tailnet_acl accept *;
            tailnet_limit_req rate=1r/m;
            alias %%TESTDIR%%/html/;
        }
        location /expires/ {
            tailnet_acl accept *;
            tailnet_limit_req rate=10r/m burst=1;
            alias %%TESTDIR%%/html/;
        }
        location /any/ {
            satisfy any;
            tailnet_acl reject *;
            auth_basic any;
            auth_basic_user_file %%TESTDIR%%/passwd;
            tailnet_limit_req rate=1r/m;
            alias %%TESTDIR%%/html/;
        }
        location /once {
            tailnet_limit_req rate=1r/m burst=1 nodelay;
            rewrite ^/once/redirect$ /once/one last;
            error_page 404 =200 /once/page;
            auth_request /sub;
        }
        location /once/page {
            tailnet_limit_req rate=1r/m burst=1 nodelay;
            try_files /page.html =404;
        }
        location /sub {
            internal;
            tailnet_limit_req rate=1r/m;
            proxy_pass http://unix:%%TESTDIR%%/back.sock;
        }
        location /late {
            tailnet_limit_req rate=1r/m for=tag:ci;
            try_files /nothing @late;
        }
        location @late {
            tailnet_limit_req rate=1r/m;
            try_files /page.html =404;
        }
        location /error/ {
            tailnet_limit_req rate=1r/m;
            error_page 429 /error/page;
            alias %%TESTDIR%%/html/;
        }
        location = /error/page { try_files /page.html =404; }
    }
    server {
        tailnet_listen 81;
        tailnet_limit_req rate=1r/m;
        location / { }
        location /own/ {
            tailnet_limit_req rate=1r/m burst=1 nodelay;
            alias %%TESTDIR%%/html/;
            location /own/nested/ { alias %%TESTDIR%%/html/; }
        }
    }
    server {
        listen unix:%%TESTDIR%%/back.sock;
        return 200;
    }
}
EOF
$t->write_config($config);
$t->run;
$t->start_wgpeer($_, peers => [$web]) for @nodes, $router;
$t->run_in('router', qw(ip addr add), "192.168.7.$_/32", qw(dev mesh0))
    for 1, 2;
my $mesh = 'http://100.64.0.1';
my $home = 'http://' . $t->underlay('host');
$t->wait_http($_->{name}, "$mesh/free/") for @nodes, $router;

sub get ($who, $path, %o) {
    my $base = $who eq 'host' ? $home : $mesh;
    return $t->http_get($who, $path =~ /^http/ ? $path : $base . $path, %o);
}

# statuses(path, who...): of one request of each, in this order.
sub statuses ($path, @who) { join ' ', map { get($_, $path)->status } @who }

# Rate, and who shares it.
my $mark = $t->log_mark;
is(statuses('/rate/', qw(laptop laptop)), '200 429', 'one request, then none');
is(statuses('/rate/', qw(phone)), '429', 'nodes of one person share a limit');
is(statuses('/rate/', qw(bob bob)), '200 429', 'two persons do not');
is(statuses('/rate/', qw(ci ci2)), '200 429', 'equal tags share');
is(statuses('/rate/', qw(host host)), '200 429', 'a host client has one too');
is(statuses('/again/', qw(laptop phone)), '200 429',
    'another place has counters of its own');
is(statuses('/free/', qw(laptop laptop)), '200 200', 'others have none');
my $r = get('laptop', '/rate/');
like($r->header('retry-after') // '', qr/^(?:[1-5]?\d|60)$/, 'Retry-After');
ok($t->wait_for_log(qr{\[error\].*limiting\ requests\ of
    \ "alice\@example\.com/tailnet\.test/tailnet\.test"
    \ by\ "tailnet_limit_req\ rate=1r/m",\ client:}x, 2, from => $mark),
    'the log says who, and which limit');
is($t->http_get('laptop', "$mesh:82/again/",
    curl => ['--http2-prior-knowledge'])->status, 429, 'HTTP/2');

# Addresses, where there is no identity.
sub routed ($n, $path, @headers) {
    return get('router', $path, curl => ['--interface', "192.168.7.$n"],
        headers => \@headers)->status;
}
is(join(' ', map { routed($_, '/burst/') } (1) x 6), '200 200 200 200 200 429',
    'who comes through a router is limited by address');
is(routed(2, '/burst/'), 200, 'each by its own');
is(routed(1, '/burst/', 'X-Real-IP: 1.2.3.4'), 429,
    'and not by the one that it claims');
is(join(' ', map { get('host', '/burst/', headers => ["X-Real-IP: 1.1.1.$_"])
    ->status } 1, 1, 1, 1, 1, 1, 2), '200 200 200 200 200 429 200',
    'a host client by the one that realip found');

# Burst and delay.
is(statuses('/burst/', ('laptop') x 6), '200 200 200 200 200 429',
    'burst=4 nodelay: five at once');
$r = get('laptop', '/burst/');
cmp_ok($r->header('retry-after'), '<=', 60, 'Retry-After: the next one');
my $parallel = $t->run_in('laptop', 'curl', '-q', '-s', '-Z', '-w',
    '%{http_code} %{time_total}\n', ('-o', '/dev/null', "$mesh/delay/") x 6);
my @answers = map { [split] } split /\n/, $parallel->{stdout};
is(join(' ', sort map { $_->[0] } @answers), '200 200 200 200 429 429',
    'burst=3: one at once, three later, two not');
my @times = sort { $a <=> $b } map { $_->[1] } grep { $_->[0] == 200 } @answers;
cmp_ok($times[0], '<', 0.45, 'the first comes at once');
cmp_ok($times[$_], '>', 0.5 * $_ - 0.3, "the next after $_ x 500 ms")
    for 1 .. 3;
cmp_ok($times[3], '<', 4, 'and no longer');
my $gone = $t->fetch('phone', "$mesh/delay/");
$gone->stop;
is(get('phone', '/delay/')->status, 200, 'who does not wait does no harm');

# for=
is(statuses('/for/', ('ci') x 3), '200 200 429', 'for=tag');
is(statuses('/for/', ('bob') x 2), '200 429', 'for=user');
is(statuses('/for/', ('laptop') x 4), '200 200 200 429', 'for all others');
is(statuses('/for/', ('host') x 4), '200 200 200 429', 'host clients too');
is(statuses('/only/', qw(laptop laptop ci ci)), '200 200 200 429',
    'for= alone leaves others free');
is(statuses('/several/', ('laptop') x 3), '200 200 429',
    'of several the strictest');

# What is counted.
is(statuses('/acl/', qw(bob bob bob)), '403 403 403', 'refused by rule');
is(statuses('/acl/', qw(laptop laptop)), '200 429', 'others are limited');
$t->netmap('web.json', self => $web, peers => [
    (map { $_->{name} eq 'bob' ? { %$_, fqdn => 'bobby.tailnet.test.' } : $_ }
        @nodes), $router]);
ok(Test::Tailnet::Process::until_true(3,
    sub { get('bob', '/acl/')->status != 403 }), 'a refused one is let in');
is(statuses('/acl/', 'bob'), '429', 'and has used up his limit by that alone');
is(join(' ', map { get('bob', '/any/', curl => ['-u', "carol:$_"])->status }
    qw(guess guess2)), '401 429', 'with "satisfy any" guesses are counted');
is(statuses('/once/redirect', qw(laptop laptop laptop)), '200 200 429',
    'redirects and subrequests do not count twice');
is(statuses('/late', qw(bob bob)), '200 429',
    'a later location limits whom the first did not');
$r = get('laptop', '/error/');
$r = get('laptop', '/error/');
is($r->status, 429, 'error_page 429');
is($r->body, "page.html\n", 'shows the page');
ok($r->header('retry-after'), 'with Retry-After');

# A key that expires while a request waits, and no snapshot comes to say so.
my @at = gmtime(time + 5);
$mark = $t->log_mark;
$t->netmap('web.json', self => $web, peers => [$router, @nodes[1 .. 4],
    { %{$nodes[0]}, key_expiry => sprintf '%04d-%02d-%02dT%02d:%02d:%02dZ',
        $at[5] + 1900, $at[4] + 1, @at[3, 2, 1, 0] }]);
ok($t->wait_for_log(qr/netmap applied/, 3, from => $mark), 'a key is to expire');
is(statuses('/expires/', 'laptop'), '200', 'but has not yet');
my $late = $t->fetch('laptop', "$mesh/expires/", timeout => 30);
ok($t->wait_for_log(qr/delaying request of "alice/, 5, from => $mark),
    'the next request waits');
my $engine = $t->engine;
kill 'STOP', $engine;
ok($t->wait_for_log(qr/access forbidden .*alice.* key has expired/, 15,
    from => $mark), 'it is refused then');
kill 'CONT', $engine;
$late->stop;
$t->netmap('web.json', self => $web, peers => [@nodes, $router]);
ok(Test::Tailnet::Process::until_true(5,
    sub { get('laptop', '/free/', timeout => 1)->ok }), 'renewed');

# Inheritance.
is(statuses("$mesh:81/", qw(laptop laptop)), '200 429', 'of the server');
is(statuses("$mesh:81/own/", ('laptop') x 3), '200 200 429', 'not if own');
is(statuses("$mesh:81/own/nested/", qw(laptop)), '429',
    'an inherited limit is the same one');

# Reload, with lines that moved.
$t->write_config($config =~ s/(location \/free)/location \/new\/ { }\n\n$1/r);
ok($t->reload(drain => 5), 'reload');
is(statuses('/rate/', qw(laptop bob)), '429 429', 'counters are kept');
is(statuses('/burst/', qw(laptop)), '429', 'all of them');

# A zone that is too small: 200 addresses at two limits do not fit.
$t->write_config($config
    =~ s/(root %%TESTDIR%%)/tailnet_limit_zone 32k; $1/r
    =~ s/worker_processes 2/worker_processes 1/r);
ok($t->reload(drain => 5), 'reload with another size');
$mark = $t->log_mark;
my $script = join "\n", map { my $n = $_;
    "url = $home/several/\nheader = \"X-Real-IP: 10.0.${\($n >> 8)}."
    . ($n & 255) . "\"\noutput = /dev/null\n"
    . "write-out = \"%{http_code}\\n\"\nnext"
    } 1 .. 400;
$t->write_file('many.curl', "$script\nurl = $home/free/\noutput = /dev/null\n");
my $many = $t->run_in('host', 'curl', '-q', '-s', '-K', 'many.curl');
is(() = $many->{stdout} =~ /^200$/mg, 400, 'a full zone serves newcomers')
    or diag(substr $many->{stdout}, 0, 200);
like($t->log_since($mark), qr/\[warn\].*"tailnet_limit_zone" is too small: /,
    'and the log says that it is too small');
is(() = $t->log_since($mark) =~ /is too small/g, 1, 'once a minute');
is(statuses('/burst/', ('laptop') x 6), '200 200 200 200 200 429',
    'limits hold all the same');

# Configuration.
for my $case (
    ['tailnet_limit_req rate=0r/s', qr/invalid parameter "rate=0r\/s"/],
    ['tailnet_limit_req rate=1', qr/invalid parameter "rate=1"/],
    ['tailnet_limit_req rate=5r/h', qr/invalid parameter "rate=5r\/h"/],
    ['tailnet_limit_req burst=5', qr/needs a "rate="/],
    ['tailnet_limit_req rate=1r/s burst=x', qr/invalid parameter "burst=x"/],
    ['tailnet_limit_req rate=1r/s delay=5', qr/invalid parameter "delay=5"/],
    ['tailnet_limit_req rate=1r/s for=', qr/"for=".*empty selector/],
    ['tailnet_limit_req rate=1r/s for=tag:', qr/"for=tag:".*tag is empty/],
    ['tailnet_limit_req rate=1r/s for=lap/bob', qr/lap/],
    ['tailnet_limit_req rate=1r/s for=bob',
        qr{must say of which node's tailnet, as for=NODE/SELECTOR}],
    ['tailnet_limit_zone 4k', qr/invalid size "4k".*at least 32768 bytes/],
) {
    my ($directive, $why) = @$case;
    my $got = $t->test_config(<<"EOF");
tailnet_node web { netmap %%TESTDIR%%/web.json;
    private_key %%TESTDIR%%/web.key; }
tailnet_node lab { netmap %%TESTDIR%%/web.json;
    private_key %%TESTDIR%%/bob.key; }
events { }
http {
    $directive;
    server {
        tailnet_listen web:80;
        tailnet_listen lab:80;
    }
}
EOF
    ok(!$got->{ok}, "\"$directive\" is refused");
    like($got->{output}, $why, 'with the reason');
    like($got->{output}, qr/test\.conf:7\b/, 'and the place');
}

$t->done_testing;
