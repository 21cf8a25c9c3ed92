# nix-instantiate --eval --strict --json -E 'import nix/tests { }'
#
# or, with the true library, { lib = import <nixpkgs/lib>; }
#
# The names of the checks that fail; none is well.
{
  lib ? null,
}:

let
  pkgs = {
    coreutils = "/coreutils";
    systemd = "/systemd";
    writeText = name: text: "${name}:${text}";
    nginx-tailnet = {
      type = "derivation";
      outPath = "/nginx-tailnet";
      nginxModule.name = "tailnet";
    };
  };

  eval =
    settings:
    if lib == null then
      (import ./lib.nix).eval (import ../module.nix) pkgs (
        # What NixOS has defaults for.
        (import ./lib.nix).merge {
          services.nginx = {
            user = "nginx";
            virtualHosts = { };
          };
        } settings
      )
    else
      (lib.evalModules {
        specialArgs = { inherit pkgs; };
        modules = [
          ./nixos.nix
          ../module.nix
          settings
        ];
      }).config;

  # A host and a location as NixOS makes them, without nixpkgs.
  host =
    h:
    if lib != null then
      h
    else
      {
        enableACME = false;
        listen = [ ];
        extraConfig = "";
      }
      // h
      // {
        locations = builtins.mapAttrs (_: l: { extraConfig = ""; } // l) (
          h.locations or { }
        );
      };

  settings = nodes: hosts: {
    services.nginx = {
      enable = true;
      tailnet = {
        enable = true;
        inherit nodes;
      };
      virtualHosts = builtins.mapAttrs (_: host) hosts;
    };
  };

  web = {
    netmap = "/var/lib/mesh/netmap.json";
    privateKey = "/run/secrets/web.key";
    port = 41641;
  };
  lab = {
    netmap = "/var/lib/lab.json";
    privateKey = "/run/secrets/lab.key";
  };

  good = eval (
    settings { inherit web; } {
      "git.internal" = {
        tailnet = {
          listen = [
            80
            {
              port = 443;
              ssl = true;
              parameters = [ "default_server" ];
            }
          ];
          only = true;
          acl = [ "accept autogroup:member tag:ci" ];
          limitReq = [ "rate=20r/s burst=40 nodelay" ];
          headers = true;
        };
        extraConfig = "client_max_body_size 1m;\n";
        locations."/admin".tailnet.acl = [
          "accept alice@example.com"
          "reject *"
        ];
      };
      "public.example" = { };
    }
  );

  vhost = good.services.nginx.virtualHosts."git.internal";
  service = good.systemd.services.tailnetd.serviceConfig;

  failed = c: map (a: a.message) (builtins.filter (a: !a.assertion) c.assertions);

  has =
    text: s:
    builtins.length (builtins.split (quote text) s) > 1;
  quote = builtins.replaceStrings [ "." "*" "+" "(" ")" "[" "]" "{" "}" "$" "^" "|" "?" "\\" ] [ "\\." "\\*" "\\+" "\\(" "\\)" "\\[" "\\]" "\\{" "\\}" "\\$" "\\^" "\\|" "\\?" "\\\\" ];

  # One mistake, one message.
  refused =
    text: c:
    let
      said = failed c;
    in
    builtins.length said == 1 && has text (builtins.head said);

  hosts = { nodes ? { inherit web; } }: t: eval (settings nodes { "a.internal".tailnet = t; });

  checks = {
    "a good configuration has no failed assertion" = failed good == [ ];
    "nor a warning" = good.warnings == [ ];

    "nodes" =
      good.environment.etc."tailnetd/tailnetd.conf".source == ''
        tailnetd.conf:tailnet_node web {
            netmap "/var/lib/mesh/netmap.json";
            private_key "/run/secrets/web.key";
            port 41641;
            mtu 1280;
        }
      '';

    "a node that joins by a control server" =
      (eval (
        settings {
          web.settings = {
            auth_key = "file:/run/key";
            tags = [
              "tag:a"
              "tag:b"
            ];
            accept_routes = true;
          };
        } { }
      )).environment.etc."tailnetd/tailnetd.conf".source == ''
        tailnetd.conf:tailnet_node web {
            port 0;
            mtu 1280;
            accept_routes on;
            auth_key "file:/run/key";
            state "/var/lib/tailnetd/web";
            tags "tag:a" "tag:b";
        }
      '';
    "a node that is nothing" = refused "either netmap and privateKey, or settings" (
      eval (settings { web = { }; } { })
    );
    "a netmap without a key" = refused "netmap and privateKey go together" (
      eval (settings { web.netmap = "/netmap.json"; } { })
    );

    "the engine" =
      good.services.nginx.appendConfig == "tailnet_engine unix:/run/tailnetd/admin.sock;\n";
    "the module" = map (m: m.name) good.services.nginx.additionalModules == [ "tailnet" ];

    "a server, names of nodes are filled in" = builtins.all (l: has l vhost.extraConfig) [
      "tailnet_listen web:80;\n"
      "tailnet_listen web:443 ssl default_server;\n"
      "tailnet_acl accept autogroup:member tag:ci;\n"
      "tailnet_limit_req rate=20r/s burst=40 nodelay;\n"
      "tailnet_headers on;\n"
      "client_max_body_size 1m;\n"
    ];

    "a location" =
      vhost.locations."/admin".extraConfig == ''
        tailnet_acl accept alice@example.com;
        tailnet_acl reject *;
      '';

    "only: no public listener" = map (l: l.addr) vhost.listen == [
      "unix:/run/nginx/git.internal.sock"
    ];
    "others stay as they are" = good.services.nginx.virtualHosts."public.example".extraConfig == "";

    "the service's command" =
      has "/nginx-tailnet/bin/tailnetd -c /etc/tailnetd/tailnetd.conf" (
        builtins.replaceStrings [ "'" ] [ "" ] service.ExecStart
      )
      && has "--client nginx" (builtins.replaceStrings [ "'" ] [ "" ] service.ExecStart);
    "nginx waits for it" = good.systemd.services.nginx.after == [ "tailnetd.service" ];
    "the firewall" = good.networking.firewall.allowedUDPPorts == [ 41641 ];
    "a closed firewall" =
      (eval (settings { web = web // { openFirewall = false; }; } { }))
      .networking.firewall.allowedUDPPorts == [ ];

    "without enable, \"tailnet\" is a mistake" = refused "virtualHosts.a.internal uses \"tailnet\"" (eval {
      services.nginx = {
        enable = true;
        virtualHosts."a.internal" = host { tailnet.acl = [ "reject *" ]; };
      };
    });
    "without nodes" = refused "services.nginx.tailnet.nodes is empty" (eval (settings { } { }));
    "without nginx" = refused "needs services.nginx.enable" (
      eval {
        services.nginx.enable = false;
        services.nginx.tailnet = {
          enable = true;
          nodes = { inherit web; };
        };
      }
    );
    "two nodes with one port" = refused "two nodes with one port" (
      eval (settings { inherit web; lab = lab // { port = 41641; }; } { })
    );
    "two nodes with port 0" = failed (eval (settings { inherit lab; web = web // { port = 0; }; } { })) == [ ];
    "two nodes with one key" = refused "two nodes with one privateKey" (
      eval (settings { inherit web; lab = lab // { inherit (web) privateKey; }; } { })
    );
    "a bad name of a node" = refused "nodes.Web: a node's name" (eval (settings { Web = web; } { }));
    "a key in the store" = refused "keys in the Nix store" (
      eval (settings { web = web // { privateKey = "${builtins.storeDir}/x-key"; }; } { })
    );
    "a relative path" = refused "have to be absolute paths" (
      eval (settings { web = web // { netmap = "netmap.json"; }; } { })
    );
    "a node must be named where there are several" = refused "port 80 has to name its node" (
      hosts { nodes = { inherit web lab; }; } { listen = [ 80 ]; }
    );
    "several nodes" = has "tailnet_listen lab:80;" (hosts { nodes = { inherit web lab; }; } {
      listen = [ { node = "lab"; port = 80; } ];
    }).services.nginx.virtualHosts."a.internal".extraConfig;
    "an unknown node" = refused "there is no node \"lab\"" (
      hosts { } { listen = [ { node = "lab"; port = 80; } ]; }
    );
    "only without listen" = refused "\"only\" without \"listen\"" (hosts { } { only = true; });
    "only with a public listener" = refused "\"listen\" is given although tailnet.only" (
      eval (
        settings { inherit web; } {
          "a.internal" = {
            tailnet.only = true;
            tailnet.listen = [ 80 ];
            listen = [ { addr = "0.0.0.0"; } ];
          };
        }
      )
    );
    "a certificate authority that is kept out" =
      let
        c =
          acl:
          (eval (
            settings { inherit web; } {
              "a.internal" = {
                enableACME = true;
                tailnet.acl = acl;
              };
            }
          )).warnings;
      in
      builtins.length (c [ "accept tag:dev" ]) == 1 && c [ "accept local tag:dev" ] == [ ];

    "a path with quotes stays one word" = has ''netmap "/a \"b\" \\c";'' (eval (
      settings { web = web // { netmap = ''/a "b" \c''; }; } { }
    )).environment.etc."tailnetd/tailnetd.conf".source;
  };
in
builtins.filter (name: !checks.${name}) (builtins.attrNames checks)
