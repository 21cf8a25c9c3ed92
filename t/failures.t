# What the error log, tailnetctl status and ping say about peers that do not
# connect: a line that names the peer or its key, and the cause, once.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

use constant PATIENCE => 20;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $lab = $t->nginx_node('lab', port => 41642);
my $shop = $t->nginx_node('shop', port => 41643);
my $den = $t->nginx_node('den', port => 41644);
my ($alice, $bob, $carol, $dave, $erin, $frank) =
    map { $t->node($_) } qw(alice bob carol dave erin frank);
my $mallory = $t->node('mallory'); # in no netmap
my $nobody = ($t->genkey)[1];

# Each node has lines of its own, so that no failure waits for another's.
$t->netmap('web.json', self => $web, peers => [
    { %$bob, endpoints => [$t->underlay('bob') . ':9'] }]);
$t->netmap('lab.json', self => $lab, peers => [$alice, $dave]);
$t->netmap('shop.json', self => $shop, peers => [
    { %$carol, key_expiry => '2001-01-01T00:00:00Z' },
    { %$erin, endpoints => [] }]);
$t->netmap('den.json', self => $den, peers => [$frank]);
$t->write_file('lab.psk', "$dave->{pub} @{[$t->psk]}\n", 0600);
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%% timing=rekey_timeout=500;
tailnet_node web {
    netmap          %%TESTDIR%%/web.json;
    private_key     %%TESTDIR%%/web.key;
    port            41641;
}
tailnet_node lab {
    netmap          %%TESTDIR%%/lab.json;
    private_key     %%TESTDIR%%/lab.key;
    preshared_keys  %%TESTDIR%%/lab.psk;
    port            41642;
}
tailnet_node shop {
    netmap          %%TESTDIR%%/shop.json;
    private_key     %%TESTDIR%%/shop.key;
    port            41643;
}
tailnet_node den {
    netmap          %%TESTDIR%%/den.json;
    private_key     %%TESTDIR%%/den.key;
    port            41644;
}
events { }
http { server { listen 127.0.0.1:%%PORT_8000%%; return 204; } }
EOC
$t->run;

# said(node, regex, what): a line of that node's comes.
sub said ($node, $line, $what) {
    ok($t->wait_for_log(qr/\[notice\] .*node "$node": $line/, PATIENCE), $what)
        or diag($t->read_log);
}

# lines(regex): how many there are.
sub lines ($line) {
    my @all = $t->read_log =~ /$line/g;
    return scalar @all;
}

sub at ($peer) { quotemeta $t->underlay($peer->{ns}) . ":$peer->{port}" }

my %status; # what "tailnetctl status" says at the end of a peer's line

sub table () {
    return map { /^  \S+\s+(\w+)\.tailnet\.test.*\d+\wi?\s\s(\S.*)$/ ?
        ($1 => $2) : () } split /\n/, $t->ctl('status')->{stdout};
}

# ---- keys ----

# It takes three handshakes, five seconds each: to be looked at last.
my $f = $t->start_wgpeer($frank,
    peers => [{ %$den, psk => $t->psk, keepalive => 1 }]);
my $m = $t->start_wgpeer($mallory, peers => [{ %$web, keepalive => 1 }]);
said('web', qr/a handshake from @{[at($mallory)]} is refused: no peer in its netmap has the key $mallory->{pub}: if it is yours, put it there$/m,
    'a key that the netmap does not have');
my $a = $t->start_wgpeer($alice,
    peers => [{ %$lab, pub => $nobody, keepalive => 1 }]);
said('lab', qr/a handshake from @{[at($alice)]} is refused: it is for another public key than this node's, which is $lab->{pub}:/,
    'a peer that has a wrong key of ours');
my $c = $t->start_wgpeer($carol, peers => [{ %$shop, keepalive => 1 }]);
said('shop', qr/a handshake of peer carol\.tailnet\.test, at @{[at($carol)]}, is refused: its key has expired/,
    'a peer whose key has expired');
is($t->ctl('ping', 'shop/carol')->{stdout},
    "$carol->{addr}[0]: the peer's key has expired\n", 'so says a ping');
# Longer than three handshakes: nobody is asked, and nobody is said to be silent.
$t->ctl('exec', 'shop', '--', 'curl', '-sS', '--max-time', 4,
    "http://$carol->{addr}[0]/");
is(lines(qr/node "shop": peer \S+ (?:does not|cannot)/), 0,
    'what is sent to it nonetheless does not change that');

my $d = $t->start_wgpeer($dave, peers => [{ %$lab, keepalive => 1 }]);
is($t->ctl('ping', 'lab/dave')->{stdout}, "$dave->{addr}[0]: no answer\n",
    'a peer with another preshared key');
said('lab', qr/an answer of peer dave\.tailnet\.test, at @{[at($dave)]}, cannot be opened: its preshared key/,
    'the reason');

# ---- ways ----

is($t->ctl('ping', 'web/bob')->{stdout}, "$bob->{addr}[0]: no answer\n",
    'an endpoint where nobody is');
said('web', qr/peer bob\.tailnet\.test does not answer at \Q@{[$t->underlay('bob')]}\E:9: /,
    'a line names it');
like($t->ctl('ping', 'shop/erin')->{stdout}, qr/no endpoint to ask at/,
    'a peer without one');
said('shop', qr/peer erin\.tailnet\.test cannot be reached: .* no "Endpoints"/,
    'the line says so');
%status = table();
like($status{bob}, qr/^never, \d+ tries without an answer$/,
    'the status counts tries');
is($status{carol}, 'its key has expired', 'and tells of the key');
cmp_ok((grep { $_->{name} =~ /^bob/ } $t->node_status('web')->{peers}->@*)[0]
    {handshake_tries}, '>', 2, 'in JSON');
ok((grep { $_->{name} =~ /^carol/ } $t->node_status('shop')->{peers}->@*)[0]
    {key_expired}, 'too');

# ---- few ----

said('den', qr/peer frank\.tailnet\.test, at @{[at($frank)]}, does not use this node's answers: the preshared keys differ/,
    'answers that frank does not use');
ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
    my $web = $t->node_status('web');
    return $web->{wireguard}{drop_unknown_peer} > 1
        && $web->{log_left_out} > 1;
}), 'mallory goes on and is counted');
is(lines(qr/has the key $mallory->{pub}/), 1, 'in one line');
is(lines(qr/another public key/), 1, 'so is alice');
is(lines(qr/peer dave\S* does not/), 0, "dave's bad answers are no silence");
$_->stop for $m, $a, $c, $d, $f;

$t->done_testing;
