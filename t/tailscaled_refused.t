# tailscaled that takes no connections ("shields up") says so, and nginx's error
# log passes it on: once, however often nginx tries.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-box', User => 'bob@example.com' }]);

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
    upstream box { tailnet_server box:8000; }
    proxy_connect_timeout 3s;
    server {
        listen 127.0.0.1:8080;
        location / { proxy_pass http://box; }
    }
}
EOF
$t->run;
my $box = $t->start_tailscaled('box', control => $control, key => 'key-box',
    up => ['--shields-up']);

my $line = qr/\[notice\] .*node "web": peer box\.tailnet\.test \(\S+\) refuses a connection to its TCP port 8000: it takes no connections \(shields up\)/;
ok(Test::Tailnet::Process::until_true(30, sub {
    $t->http_get('host', 'http://127.0.0.1:8080/', timeout => 6);
    return $t->read_log =~ $line;
}), 'the log names peer, port and reason') or diag($t->read_log);
$t->http_get('host', 'http://127.0.0.1:8080/', timeout => 6) for 1, 2;
is(() = $t->read_log =~ /$line/g, 1, 'once');

$t->done_testing;
