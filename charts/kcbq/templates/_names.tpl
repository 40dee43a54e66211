{{/* The name of everything in this release. */}}
{{- define "kcbq.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "kcbq.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kcbq.labels" -}}
{{ include "kcbq.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "kcbq.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "kcbq.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "kcbq.secret" -}}
{{ .Values.secrets.existing | default (include "kcbq.name" .) }}
{{- end }}

{{- define "kcbq.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion }}
{{- .Values.image.repository }}:{{ $tag }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/*
The admin token in base64: the one of the values, else the one that is kept in the cluster, else a random one, the same in the
whole rendering. Where no cluster answers (`helm template`, Argo CD, Flux) a random one would be another each time: there it
must be given.
*/}}
{{- define "kcbq.adminToken" -}}
{{- if not (hasKey .Values "renderedAdminToken") }}
{{- $given := index .Values.secrets.data "admin-token" | default "" }}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (include "kcbq.secret" .)).data | default dict }}
{{- $token := $given | b64enc | default (index $kept "admin-token") }}
{{- if not $token }}
{{- if not (lookup "v1" "ServiceAccount" .Release.Namespace "default") }}
{{- fail "no cluster answers, so a random admin-token would be another at each rendering: set secrets.data.admin-token, or secrets.existing to a Secret that has one" }}
{{- end }}
{{- $token = randAlphaNum 32 | b64enc }}
{{- end }}
{{- $_ := set .Values "renderedAdminToken" $token }}
{{- end }}
{{- .Values.renderedAdminToken }}
{{- end }}

{{/*
What changes with the secrets, so that a new one is a rollout. Whoever may read pods reads this: the admin token is the key,
without which a password cannot be guessed from it.
*/}}
{{- define "kcbq.secretsChecksum" -}}
{{- if .Values.secrets.existing }}none
{{- else }}{{ printf "%s %s" (include "kcbq.adminToken" .) (.Values.secrets.data | toJson) | sha256sum }}
{{- end }}
{{- end }}

{{/* The configuration with what the chart sets. */}}
{{- define "kcbq.config" -}}
{{- $name := include "kcbq.name" . }}
{{- $service := printf "%s.%s" $name .Release.Namespace }}
{{- $names := list $name $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service) }}
{{- $own := dig "admin" "host_names" list .Values.config }}
{{- $admin := dict "listen" "0.0.0.0:8080" "token" "${file:/etc/kcbq/secrets/admin-token}" "host_names" (concat $names $own | uniq) }}
{{- $set := dict "admin" $admin }}
{{- if .Values.staticMembership }}
{{- $set = merge $set (dict "kafka" (dict "group_instance_id" "${POD_NAME}")) }}
{{- end }}
{{- mergeOverwrite (deepCopy .Values.config) $set | toYaml }}
{{- end }}

{{/* Seconds that a replica has to drain, commit and leave. */}}
{{- define "kcbq.grace" -}}
{{- $limits := .Values.config.limits | default dict }}
{{- $drain := hasKey $limits "drain_timeout_ms" | ternary $limits.drain_timeout_ms 30000 | int }}
{{- add (div (add $drain 999) 1000) .Values.terminationMarginSeconds }}
{{- end }}
