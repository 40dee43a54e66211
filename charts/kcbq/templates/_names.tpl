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

{{/* The configuration with what the chart sets. */}}
{{- define "kcbq.config" -}}
{{- $admin := dict "listen" "0.0.0.0:8080" "token" "${file:/etc/kcbq/secrets/admin-token}" }}
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
