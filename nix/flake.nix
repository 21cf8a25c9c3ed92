# nix build 'git+file:///path/to/nginx-tailnet?dir=nix'
{
  description = "nginx as a node of a WireGuard mesh, with identity and rules";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll =
        f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      overlays.default = final: prev: {
        nginx-tailnet = final.callPackage ./package.nix { };
        nginxModules = prev.nginxModules // {
          tailnet = final.nginx-tailnet.nginxModule;
        };
      };

      packages = forAll (pkgs: rec {
        nginx-tailnet = pkgs.callPackage ./package.nix { };
        nginx = pkgs.nginxStable.override {
          modules = [ nginx-tailnet.nginxModule ];
        };
        default = nginx-tailnet;
      });

      nixosModules.default = {
        imports = [ ./module.nix ];
        nixpkgs.overlays = [ self.overlays.default ];
      };
    };
}
