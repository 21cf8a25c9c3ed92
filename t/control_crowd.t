# A tailnet of ten thousand peers: nginx joins it, a word about one peer reaches the
# workers, and a thousand such words leave nothing behind.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use List::Util qw(min);
use POSIX qw(strftime);
use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);

use constant {
    PEERS => $ENV{TAILNET_CROWD} // 10_000, # full/control_crowd.t has more
    PATIENCE => 60, # s; a sanitizer on a busy machine takes long
    WARM_UP => 200,
    CHANGES => 1000,
};

my $t = Test::Tailnet->new(also => ['control', 'reqloop']);

my $control = $t->start_control(crowd => PEERS, keys => [
    { Key => 'secret-web', Tags => ['tag:web'] }]);
my $alice = $t->node('alice', addr => ['100.64.9.77']);

$t->write_file('auth.key', "secret-web\n", 0600);
$t->write_config(<<"EOF");
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    hostname     webserver;
    state        %%TESTDIR%%/state;
    port         41641;
}
events { }
http {
    upstream gpu {
        tailnet_server tag:gpu:8000;
        server 127.0.0.1:8100 backup;
    }
    server {
        tailnet_listen 80;
        listen 127.0.0.1:8080;
        location = /status {
            tailnet_acl accept local;
            tailnet_status;
        }
        location / {
            tailnet_acl accept tag:gpu;
            add_header X-Node \$tailnet_node;
            root %%TESTDIR%%/html;
        }
        location = /who {
            tailnet_acl accept *;
            add_header X-User \$tailnet_user;
            add_header X-Caps \$tailnet_caps;
            add_header X-Self \$tailnet_self_name;
            root %%TESTDIR%%/html;
            try_files /index.html =404;
        }
        location /gpu {
            proxy_pass http://gpu;
            proxy_connect_timeout 5s;
        }
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

# How many messages of the stream were heard.
sub heard () {
    return $t->ctl('--json', 'status', 'web')->{stdout} =~ /"messages":(\d+)/
        ? $1 : 0;
}

# ---- joining ----

$t->run;
ok($t->wait_for_log(qr/netmap applied: @{[PEERS]} peers/, PATIENCE),
    'nginx joins ' . PEERS . ' peers');
my $known = $control->wait_node('webserver', PATIENCE) or BAIL_OUT('not joined');
my $self = $known->{Node}{Addresses}[0] =~ s{/.*}{}r;
my $last;
ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
    $last = $t->ctl('whois', '100.65.39.15');
    return $last->{stdout} =~ /crowd-9999\.tailnet\.test/;
}), 'one of them is known') or diag($last->{output});

# ---- one more, who is real ----

my %row = (ID => 77, StableID => 'n77', Name => 'alice.tailnet.test.',
    User => 2147455555, Tags => ['tag:gpu'], Key => $alice->{pub},
    Addresses => ['100.64.9.77/32'], AllowedIPs => ['100.64.9.77/32'],
    Endpoints => $alice->{endpoints}, IsWireGuardOnly => \1,
    MachineAuthorized => \1, Online => \1);
$control->message('webserver', { PeersChanged => [\%row] });
start_app($t, 'alice', name => 'app', port => 8000);
start_app($t, 'host', name => 'lan', port => 8100);
$t->start_wgpeer($alice, peers => [{ name => 'web', pub => $known->{Node}{Key},
    addr => [$self], routes => [],
    endpoints => [$t->underlay('host') . ':41641'] }]);
my $r = $t->wait_http('alice', "http://$self/", PATIENCE);
is($r->status, 200, 'a peer that comes later is let in') or diag($r->text);
is($r->header('x-node'), 'alice.tailnet.test', 'by her name');

# ---- a word about one peer reaches nginx ----

sub becomes ($who, $what) {
    my $says = '';

    Test::Tailnet::Process::until_true(PATIENCE, sub {
        my $r = $t->http_get('host', 'http://127.0.0.1:8080/gpu');
        $says = $r->status == 200 ? (split ' ', $r->body)[0] : $r->status;
        return $says eq $who;
    });
    is($says, $who, $what);
}

becomes('app', 'nginx asks her in turn');
for my $round (1 .. 3) {
    $control->message('webserver', { PeersChangedPatch => [
        { NodeID => 77, Online => \0 }] });
    becomes('lan', 'offline: not any more');
    $control->message('webserver', { OnlineChange => { 77 => \1 } });
    becomes('app', 'online: again');
}
$control->message('webserver', { PeersChanged => [{ %row, Online => \0 }] });
becomes('lan', 'offline, said with all the rest');
$control->message('webserver', { PeersChanged => [{ %row }] });
becomes('app', 'online again');
$control->message('webserver', { PeersChangedPatch => [
    { NodeID => 77, KeyExpiry => '2001-01-01T00:00:00Z' }] });
ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
    $t->ctl('whois', '100.64.9.77')->{stdout} =~ /expired/
}), 'her key expires') or diag($t->ctl('whois', '100.64.9.77')->{output});
$control->message('webserver', { PeersChangedPatch => [
    { NodeID => 77, KeyExpiry => '2090-01-01T00:00:00Z' }] });
becomes('app', 'and has not, after all');
is($t->wait_http('alice', "http://$self/", PATIENCE)->status, 200, 'she is let in');

# ---- so does what is not about one peer ----

sub says ($header, $test, $what) {
    my $says = '';

    ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
        my $r = $t->http_get('alice', "http://$self/who", timeout => 5);
        $says = $r->status == 200 ? $r->header($header) // '' : $r->status;
        return $says =~ $test;
    }), $what) or diag($says);
}

sub rules ($rules) {
    $control->message('webserver', { PacketFilters => { more => $rules } });
}

sub grant ($value) {
    return [{ SrcIPs => ['100.64.9.77'], CapGrant => [{ Dsts => ["$self/32"],
        CapMap => { 'example.com/x' => [$value] } }] }];
}

my %person = (%row, User => 4711);
delete $person{Tags};
$control->message('webserver', { PeersChanged => [\%person],
    UserProfiles => [{ ID => 4711, LoginName => 'alice@example.com' }] });
says('x-user', qr/^alice\@example\.com$/, 'a user');
$control->message('webserver', {
    UserProfiles => [{ ID => 4711, LoginName => 'lisa@example.com' }] });
says('x-user', qr/^lisa\@example\.com$/, 'who has another name');
rules(grant('one'));
says('x-caps', qr/one/, 'a capability');
rules(grant('two'));
says('x-caps', qr/two/, '... that becomes another');
rules(undef);
says('x-caps', qr/^(?!.*two)/, '... and goes');
$control->message('webserver', { Node => { $known->{Node}->%*,
    Name => 'other.tailnet.test.' } });
says('x-self', qr/^other\./, 'the node has another name');
$control->message('webserver', { Node => $known->{Node} });
says('x-self', qr/^webserver\./, '... and its own again');
$control->message('webserver', { PeersChangedPatch => [{ NodeID => 77,
    KeyExpiry => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time + 4)) }] });
says('x-user', qr/^lisa/, 'she is let in while her key lasts');
ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
    $t->http_get('alice', "http://$self/who", timeout => 2)->status != 200
}), '... and not when its time is over');
$control->message('webserver', { PeersChangedPatch => [
    { NodeID => 77, KeyExpiry => '2090-01-01T00:00:00Z' }] });
says('x-user', qr/^lisa/, '... but with a longer one');
$control->message('webserver', { PeersChanged => [\%row] });
becomes('app', 'with her tags again');

# ---- all of them are shown, and nobody waits for that ----

# complete(document): nobody is missing, or there twice.
sub complete ($text, $what) {
    my ($peers) = $text =~ /"peers":\[(.*)\]\}\]\}\s*\z/s;
    my @names = ($peers // '') =~ /\{"name":"([^"]*)","addresses":/g;
    my %name = map { $_ => 1 } @names;

    is(@names, PEERS + 1, "$what: all peers") or diag(substr $text, 0, 500);
    is(keys %name, PEERS + 1, "$what: each once");
    ok($name{'alice.tailnet.test'} && $name{'crowd-9999.tailnet.test'},
        "$what: with their names");
}

my $loop = $t->start_reqloop('alice', url => "http://$self:80/", parallel => 2,
    timeout => 1000 * PATIENCE);
my @pages = map { $t->fetch('host', 'http://127.0.0.1:8080/status',
    timeout => PATIENCE) } 1 .. 3;
complete($t->ctl('--json', 'status', 'web')->{stdout}, 'tailnetctl');
complete($_->response->body, 'tailnet_status') for @pages;
my $asked = $loop->stop;
is($asked->{failures}, 0, 'requests go on meanwhile') or diag(explain($asked));
note("$asked->{requests} requests, the longest took $asked->{max_ms} ms");

# ---- a thousand of them ----

my %pid = (engine => $t->engine, holder => $t->holder,
    worker => ($t->workers)[0]);

sub census () {
    return {
        fds => { map { $_ => $t->fd_kinds($pid{$_}) } keys %pid },
        kb => { map { $_ => $t->private_dirty($pid{$_}) } keys %pid },
    };
}

# settled(messages): when so many were heard and all was published.  Memory is
# the least of some seconds: while the netmap is being saved there is more.
sub settled ($messages) {
    my ($before, $now) = (census());

    ok(Test::Tailnet::Process::until_true(PATIENCE,
        sub { heard() >= $messages }), 'all are heard');
    Test::Tailnet::Process::until_true(5, sub {
        ($before, $now) = ($now // $before, undef);
        select undef, undef, undef, 0.3;
        $now = census();
        return eq_hash($now->{fds}, $before->{fds});
    });
    for (1 .. 10) {
        select undef, undef, undef, 0.2;
        my $kb = census()->{kb};
        $now->{kb}{$_} = min($now->{kb}{$_}, $kb->{$_}) for keys %pid;
    }
    return $now;
}

# kB of private memory: a tenth of what a netmap takes.
my $tolerance = 0.15 * PEERS;

my $heard = heard();
$control->changes('mixed', WARM_UP);
my $before = settled($heard + WARM_UP);
$control->changes('mixed', CHANGES, 2);
ok($control->changed(PATIENCE), CHANGES . ' changes');
my $after = settled($heard + WARM_UP + CHANGES);
is_deeply($after->{fds}, $before->{fds}, 'descriptors are the same');
SKIP: {
    skip 'sanitizers keep memory', 3
        if Test::Tailnet::Process::slurp("/proc/$pid{holder}/maps")
            =~ /lib[alu]b?san/;
    for my $name (sort keys %pid) {
        my ($old, $new) = ($before->{kb}{$name}, $after->{kb}{$name});
        Test::Tailnet::Process::until_true(PATIENCE, sub {
            $new = min($new, $t->private_dirty($pid{$name}));
            return $new - $old <= $tolerance;
        });
        cmp_ok($new - $old, '<=', $tolerance, "memory of the $name");
        note("$name: $old kB, then $new kB");
    }
}
is($t->http_get('alice', "http://$self/")->status, 200, 'nginx serves');
is($t->engine, $pid{engine}, 'by the same engine');

$t->done_testing;
