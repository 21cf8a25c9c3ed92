# What changes at the control server takes effect at nginx at once, and nobody
# else's requests suffer.  control_change_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

# Seconds for each on a busy machine; the median has to be less than one.
use constant WITHIN => 3;
# Where a WireGuard session begins: its first message may be lost, and the next
# one comes after five seconds.
use constant WITH_SESSION => 8;

our $headscale;
my $at = $headscale ? '' : '@example.com';
my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'key-web', User => "ops$at", Tags => ['tag:web'] },
    { Key => 'key-alice', User => "alice$at", Reusable => \1 },
    { Key => 'key-bob', User => "bob$at" },
    { Key => 'key-ci', User => "ops$at", Tags => ['tag:ci'] }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state;
    tags         tag:web;
    port         41641;
}
events { }
http {
    upstream box {
        tailnet_server box:8000;
        server 127.0.0.1:8081 backup;
    }
    server {
        tailnet_listen 80;
        add_header X-User \$tailnet_user;
        add_header X-Tags \$tailnet_tags;
        add_header X-Node \$tailnet_node;
        add_header X-Self \$tailnet_self_name;
        root %%TESTDIR%%/html;
        location / { tailnet_acl accept user:alice$at; }
        location /tag/ { tailnet_acl accept tag:ci; }
        location /name/ { tailnet_acl accept robert; }
        location /all/ { tailnet_acl accept *; }
    }
    server {
        listen 127.0.0.1:8080;
        location / { proxy_pass http://box; }
    }
    server {
        listen 127.0.0.1:8081;
        return 200 "backup\\n";
    }
}
EOF
for my $place ('', qw(/tag /name /all)) {
    mkdir $t->testdir . "/html$place";
    $t->write_file("html$place/index.html", "hello\n");
}

# ---- everybody joins ----

$t->run;
my %key = (alice => 'alice', box => 'alice', bob => 'bob', ci => 'ci');
my %peer = map { $_ => $t->start_tailscaled($_, control => $control,
    key => "key-$key{$_}", wait => 0) } sort keys %key;
$_->wait_login for values %peer;
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
my $url = "http://$ip";
$t->start_httpd('box', root => $t->testdir . '/html');

my $r = $t->wait_http('alice', "$url/", 10);
is($r->status, 200, 'alice is let in') or diag($r->text, $t->read_log);
is($r->header('x-user'), "alice$at", 'by her login');
$r = $t->wait_http('ci', "$url/tag/", 10);
is($r->status, 200, 'a tagged node, by its tag');
is($r->header('x-tags'), 'tag:ci', 'which is known');
is($r->header('x-user'), undef, 'and is nobody');

# takes_effect(what, test, within): how long until test is true.
my @took; # where within is WITHIN
sub takes_effect ($what, $test, $within = WITHIN) {
    my $begin = time;
    my $done = Test::Tailnet::Process::until_true(15, $test);
    my $s = time - $begin;

    ok($done && $s < $within, sprintf '%s (%.2f s)', $what, $s);
    push @took, $s if $within == WITHIN;
}

# answers(who, path, status): a test; status 0: no answer, which is told after a
# second without.
sub answers ($who, $path, $want) {
    return sub {
        $t->http_get($who, "$url$path", timeout => 1)->status == $want;
    };
}

# says(who, header, value): a test of what nginx knows.
sub says ($who, $header, $want) {
    return sub {
        ($t->http_get($who, "$url/all/", timeout => 2)->header($header) // '')
            eq $want;
    };
}

sub upstream ($want) {
    return sub {
        $t->http_get('host', 'http://127.0.0.1:8080/index.html')->body
            eq $want;
    };
}

# ---- peers, while others' requests run ----

takes_effect("$_ is known", answers($_, '/all/', 200), WITH_SESSION)
    for qw(bob ci box);
my $loop = $t->start_reqloop('alice', url => "http://$ip:80/",
    parallel => 4, interval => 5, timeout => 5000, size => 6);

$control->set('ci', Tags => ['tag:other']);
takes_effect('another tag: out', answers('ci', '/tag/', 403));
$control->set('ci', Tags => ['tag:ci']);
takes_effect('the tag again: in', answers('ci', '/tag/', 200));

$control->set('bob', User => "alice$at");
takes_effect('another user: in', answers('bob', '/', 200));
$control->set('bob', User => "bob$at");
takes_effect('the old user: out', answers('bob', '/', 403));

is($t->http_get('bob', "$url/name/")->status, 403, 'bob is not robert');
$control->set('bob', Name => 'robert');
takes_effect('renamed: in by the new name', answers('bob', '/name/', 200));
is($t->http_get('bob', "$url/all/")->header('x-node'), 'robert.tailnet.test',
    'which nginx knows');
$control->set('web', Name => 'shop');
takes_effect('nginx renamed', says('ci', 'x-self', 'shop.tailnet.test'));

takes_effect('an upstream that is online', upstream("hello\n"),
    WITH_SESSION);
$control->set('box', Online => \0);
takes_effect('gone offline: the backup', upstream("backup\n"));
$control->set('box', Online => undef);
takes_effect('online again: the first', upstream("hello\n"));

$t->start_tailscaled('dave', control => $control, key => 'key-alice');
takes_effect('a new node of alice: served', answers('dave', '/', 200),
    WITH_SESSION);

# ---- a peer that may only answer ----

$t->start_httpd('bob', root => $t->testdir . '/html');
my $row = $control->node('bob')->{Node};
for my $jailed (1, 0) {
    $control->message('web', { PeersChanged => [{ %$row,
        Name => 'robert.tailnet.test.', IsJailed => $jailed ? \1 : \0 }] });
    takes_effect($jailed ? 'jailed: he reaches nobody' : 'not any more',
        answers('bob', '/all/', $jailed ? 0 : 200),
        $jailed ? WITHIN + 1 : WITH_SESSION);
    $r = $t->ctl('exec', 'web', '--', 'curl', '-sS', '--max-time', 10,
        "http://@{[$peer{bob}->ip]}:8000/index.html");
    is($r->{stdout}, "hello\n", 'but can be reached') or diag($r->{output});
}

# ---- the packet filter ----

# Those of ips may reach everybody.
sub rules (@ips) {
    return [{ SrcIPs => \@ips,
        DstPorts => [{ IP => '*', Ports => { First => 0, Last => 65535 } }] }];
}

$control->filters({ base => rules(map { $peer{$_}->ip } qw(alice box ci)) });
takes_effect('the filter cuts bob off', answers('bob', '/all/', 0), WITHIN + 1);
ok(Test::Tailnet::Process::until_true(10, sub {
    $t->http_get('bob', "$url/all/", timeout => 1);
    return $peer{bob}->log =~ /TCP \S+ > \Q$ip\E:80 rejected due to acl/;
}), 'as his tailscaled is told') or diag(grep { /reject/ } $peer{bob}->log);
$control->filters(undef);
takes_effect('and lets him in again', answers('bob', '/all/', 200),
    WITH_SESSION);

$control->remove('bob');
takes_effect('bob is removed: no answer any more', answers('bob', '/all/', 0),
    WITHIN + 1);
like($t->ctl('whois', $peer{bob}->ip)->{output}, qr/nobody has this address/,
    'nobody knows him');

@took = sort { $a <=> $b } @took;
cmp_ok($took[@took / 2], '<', 1, 'most of it within a second');

my $s = $loop->stop;
is($s->{failures}, 0, "of alice's $s->{requests} requests none has failed")
    or diag(explain($s->{reasons}));
note("gap $s->{max_gap_ms} ms");

$control->filters({});
takes_effect('a filter without rules: nobody', answers('alice', '/', 0),
    WITHIN + 1);
$control->filters(undef);
takes_effect('all is allowed again', answers('alice', '/', 200),
    WITH_SESSION);

$t->done_testing;
