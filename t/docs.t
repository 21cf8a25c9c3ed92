# README.md and docs/: nginx takes each example, and what they promise of plain
# WireGuard and of a control server behind the same nginx comes true.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl wgpeer control)]);
my $dir = $t->testdir;
my $top = "$FindBin::Bin/..";
my $node = 'tailnet_node web { netmap mesh.json; private_key web.key; }';

# blocks(file, language): its examples.
sub blocks ($file, $language) {
    return Test::Tailnet::Process::slurp("$top/$file")
        =~ /^```$language\n(.*?)^```$/msg;
}

# Paths of an installed nginx are those of this test.
sub here ($text) {
    return $text =~ s{/etc/nginx/}{}gr =~ s{/var/lib/nginx}{$dir/lib}gr
        =~ s{/var/log/nginx}{$dir}gr;
}

# whole(text): an example with what has to be around it.
sub whole ($text) {
    return $text if $text =~ s/^load_module .*;$//m;
    return "$text\nevents { }\n" if $text =~ /^tailnet_(?:node|engine) /;
    $text = "server { tailnet_listen 8080; $text }"
        if $text !~ /^(?:server|upstream|map) /;
    return "$node\nevents { }\nhttp {\n$text\n}\n";
}

# ---- each is taken ----

my $web = $t->nginx_node('web', addr => ['10.9.0.1']);
my $laptop = $t->node('laptop', addr => ['10.9.0.2'],
    user => 'alice@example.com');

$t->nginx_node('lab');
$t->write_file('mesh.json', '{}');
$t->write_file('grafana.users', "alice:x\n");
for my $name (qw(git grafana headscale)) {
    my $r = $t->run_command(['openssl', 'req', '-x509', '-newkey', 'ec',
        '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', "/CN=$name",
        '-keyout', "$dir/$name.key", '-out', "$dir/$name.pem"]);
    $r->{ok} or die $r->{output};
}
for my $file (qw(README.md docs/reference.md docs/migrating.md)) {
    my $n = 0;

    for my $text (blocks($file, 'nginx')) {
        my $r = $t->test_config(whole(here($text)));
        ok($r->{ok}, "$file: example " . ++$n) or diag($text, $r->{output});
        unlike($r->{output}, qr/\[\w+\]/, 'without a warning');
    }
    cmp_ok($n, '>=', 2, "$file has examples");
}

# ---- plain WireGuard ----

sub base64 ($node) {
    return encode_base64(pack('H*', $node->{pub} =~ s/^nodekey://r), '');
}

my ($mesh) = blocks('docs/migrating.md', 'json');
ok($mesh =~ s/"Key": "\K[^"]*/base64($laptop)/e, 'a netmap with a key of wg');
$t->write_file('mesh.json', $mesh);
mkdir "$dir/html";
$t->write_file('html/index.html', "hello\n");
$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web { netmap mesh.json; private_key web.key; port 41641; }
events { }
http {
    server {
        tailnet_listen 80;
        location / { tailnet_acl accept alice@example.com; root html; }
    }
}
EOF
$t->run;
$t->start_wgpeer($laptop, peers => [$web]);
is($t->http_get('laptop', 'http://10.9.0.1/')->body, "hello\n",
    'WireGuard with addresses of its own');
my $r = $t->run_in('host', 'sh', '-c', 'exec "$0" pubkey --base64 <"$1"',
    $t->binary('tailnetctl'), $web->{key_file});
is($r->{stdout}, base64($web) . "\n", 'the key for the peer');
like($t->ctl('exec', 'web', '--', 'ip', 'address')->{stdout},
    qr/mesh0.*10\.9\.0\.1/s, 'where mesh0 is to be seen');
$t->stop;

# ---- a control server behind the nginx that joins by it ----

my $control = $t->start_control(headscale => 1,
    keys => [{ Key => 'ops', User => 'ops', Reusable => \1 }]);
my ($front) = grep { /proxy_buffering/ } blocks('docs/migrating.md', 'nginx');
my $url = $control->url;
$front =~ s/listen 443 ssl;/listen 127.0.0.1:8082;/;
$front =~ s{http://127\.0\.0\.1:8080}{$url};
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url http://127.0.0.1:8082;
    auth_key    "exec:echo ops";
    state       lib/tailnet/web;
}
events { }
http {
    $front
}
EOF
$t->run;
ok($control->wait_node('web', 30), 'a node joins by the nginx that it is of');

$t->done_testing;
