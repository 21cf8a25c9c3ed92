# A binary upgrade from one nginx version to the next, under load: nothing is
# lost.  The next one is in TAILNET_NEXT_BUILD (tests/run sets it).

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Copy qw(copy);
use Test::More;
use Test::Tailnet;

my $next = $ENV{TAILNET_NEXT_BUILD};
Test::Tailnet::skip('no other nginx to upgrade to: TAILNET_NEXT_BUILD') if !$next;

my $t = Test::Tailnet->new(also => ['reqloop']);
my $dir = $t->testdir;

# What a package does: the files change under the running nginx.
sub install ($nginx, $module) {
    for my $file (["$dir/nginx", $nginx], ["$dir/module.so", $module]) {
        my ($to, $from) = @$file;
        copy($from, "$to.new") or die "$from: $!";
        chmod 0755, "$to.new" or die "$to: $!";
        rename "$to.new", $to or die "$to: $!";
    }
}

install($t->binary('nginx'), $t->binary('module'));
$t->use_binary(nginx => "$dir/nginx", module => "$dir/module.so");

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
$t->netmap('web.json', self => $web, peers => [{ %$alice, endpoints => [] }]);
mkdir "$dir/html";
$t->write_file('html/index.html', "hello\n");
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept alice@example.com;
            add_header X-Version $nginx_version;
            root %%TESTDIR%%/html;
        }
    }
}
EOC
$t->run;
$t->start_wgpeer($alice, peers => [$web]);

my $old = $t->http_get('alice', 'http://100.64.0.1/')->header('x-version');
ok($old, 'the old version answers') and note($old);
my $loop = $t->start_reqloop('alice', url => 'http://100.64.0.1:80/', parallel => 8);
ok($t->reload, 'a reload before');
install("$next/nginx-bin", "$next/ngx_tailnet_module.so");
ok($t->upgrade, 'the new binary takes over');
my $new = $t->http_get('alice', 'http://100.64.0.1/')->header('x-version');
isnt($new, $old, 'another version answers') and note($new);
ok($t->reload, 'a reload after');
my $sum = $loop->stop;
is($sum->{failures}, 0, 'no request failed') or diag(explain($sum->{reasons}));
cmp_ok($sum->{requests}, '>', 100, 'under load');

$t->done_testing;
